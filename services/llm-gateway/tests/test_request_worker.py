from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kubechain_common.api.v1alpha1 import LLM
from kubechain_common.api.v1alpha1.conversation import Message, TokenUsage
from kubechain_common.api.v1alpha1.llm import LLMParameters, LLMSpec
from kubechain_common.api.v1alpha1.status import SpanContext
from kubechain_common.kube.errors import KubeError, UnavailableError
from kubechain_common.kube.window_reader import ContentLostError
from kubechain_common.messages import Envelope, LLMRequest, LLMResult, ObjectRef, ResponseFormat, ToolDefinition
from kubechain_common.messaging.delivery import Delivery, Poison
from kubechain_common.messaging.errors import BusUnavailableError, RetryLater
from kubechain_common.runtime.clock import epoch, now
from kubechain_common.testing.entries import InMemoryEntries
from kubechain_llm_gateway.admission.admission import Admission
from kubechain_llm_gateway.admission.circuit import answer_probe, trip
from kubechain_llm_gateway.admission.fallback_calls import FallbackCalls
from kubechain_llm_gateway.admission.health_board import HealthBoard
from kubechain_llm_gateway.admission.metering import Meter
from kubechain_llm_gateway.admission.rate_limiter import RateLimiter
from kubechain_llm_gateway.calls.request_worker import RequestWorker
from kubechain_llm_gateway.calls.results import build_poison_result
from kubechain_llm_gateway.llms.access import LLMAccess
from kubechain_llm_gateway.providers.base import Completion, OnDelta, Validation
from kubechain_llm_gateway.providers.errors import (
    KeyRefusedError,
    ProviderError,
    RejectedRequestError,
    TransientProviderError,
    UnusableReplyError,
)

LLM_UID = "llm-uid"
RESULT = "kubechain.llm.result.default.task-uid.1.0"
ANSWER = Completion(Message(role="assistant", content="hello"), TokenUsage(input_tokens=1), "stop")

BuildDelivery = Callable[..., Delivery[LLMRequest]]
BuildLLM = Callable[..., LLM]


class World:
    """The bus, the LLMs, the Secrets, the Task and the provider, all in memory."""

    def __init__(self, llm: LLM) -> None:
        self.llm: LLM | None = llm
        self.secret: dict[str, str] | None = {"OPENAI_API_KEY": "sk-1"}
        self.outcome: Completion | Exception = ANSWER
        self.others: dict[str, LLM] = {}
        self.models: list[str | None] = []
        self.data: list[dict[str, Any] | None] = []
        self.outcomes: dict[str, Completion | Exception] = {}
        self.api_server_error: Exception | None = None
        self.secret_error: Exception | None = None
        self.calls: list[str | None] = []
        self.heard: list[str] = []
        self.wanted = True
        self.asked = 0
        self.published: list[tuple[str, LLMResult]] = []
        self.notices_fail = False
        self.stopping = asyncio.Event()
        self.access = LLMAccess(self, self, self)
        self.conversations = Conversations()
        self.board = HealthBoard(InMemoryEntries())
        meter = Meter(RateLimiter(InMemoryEntries(), epoch), self.find_llm, epoch, self.stopping)
        self.admission = Admission(self.board, meter, self.find_llm, self.stopping)
        self.worker = RequestWorker(
            self,
            self.access,
            self.admission,
            FallbackCalls(self, self.admission),
            self,
            self.conversations,
            self.stopping,
        )

    def find_llm(self, uid: str) -> LLM | None:
        return next((llm for llm in self.others.values() if llm.uid == uid), self.llm)

    def get(self, namespace: str, name: str) -> LLM | None:
        return self.others.get(name, self.llm)

    async def read(self, namespace: str, name: str) -> dict[str, str] | None:
        if self.secret_error is not None:
            raise self.secret_error
        return self.secret

    async def build(self, spec: LLMSpec, api_key: str | None) -> Provider:
        return Provider(self, api_key)

    async def is_wanted(self, request: LLMRequest) -> bool:
        self.asked += 1
        if self.api_server_error is not None:
            raise self.api_server_error
        return self.wanted

    async def publish(self, subject: str, message: Envelope, *, msg_id: None, trace: SpanContext | None) -> None:
        if self.notices_fail:
            raise BusUnavailableError("down")
        assert msg_id is None
        await self.publish_until_stored(subject, message, trace=trace)

    async def publish_until_stored(self, subject: str, message: Envelope, *, trace: SpanContext | None) -> None:
        assert isinstance(message, LLMResult)
        self.published.append((subject, message))

    @property
    def result(self) -> LLMResult:
        assert [subject for subject, _ in self.published] == [RESULT]
        return self.published[0][1]


class Conversations:
    """Every reference reads ``whole``, unless reading fails."""

    def __init__(self) -> None:
        self.error: KubeError | None = None
        self.learned: dict[str, str] = {}

    def learn(self, task: ObjectRef, texts: Mapping[str, str]) -> None:
        self.learned.update(texts)

    async def read(self, task: ObjectRef, window: Sequence[Message]) -> list[Message]:
        if self.error is not None:
            raise self.error
        return [message.model_copy(update={"content": f"whole {message.content}"}) for message in window]

    async def show_images(self, task: ObjectRef, messages: Sequence[Message], limit: int) -> list[Message]:
        return [
            message.model_copy(update={"content": f"{message.content}, up to {limit} images"}) for message in messages
        ]


class Provider:
    def __init__(self, world: World, api_key: str | None) -> None:
        self._world = world
        self._api_key = api_key

    async def validate(self) -> Validation:
        raise AssertionError("calls do not validate")

    async def complete(
        self,
        messages: Sequence[Message],
        tools: Sequence[ToolDefinition],
        parameters: LLMParameters,
        on_delta: OnDelta | None,
        response_format: ResponseFormat | None,
    ) -> Completion:
        self._world.calls.append(self._api_key)
        self._world.heard = [message.content for message in messages]
        self._world.data = [message.provider_data for message in messages]
        self._world.models.append(parameters.model)
        outcome = self._world.outcomes.get(parameters.model or "", self._world.outcome)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


@pytest.fixture
def world(build_llm: BuildLLM) -> World:
    return World(build_llm())


async def test_an_answer_is_published_once(world: World, build_delivery: BuildDelivery) -> None:
    await world.worker.handle_request(build_delivery())
    assert world.result.outcome == "Message"
    assert world.result.message == ANSWER.message
    assert world.result.usage == ANSWER.usage
    assert (world.result.stop_reason, world.result.attempt) == ("stop", 1)
    assert world.asked == 0


async def test_the_model_hears_the_conversation_in_full(world: World, build_delivery: BuildDelivery) -> None:
    delivery = build_delivery()
    delivery.message.texts["configmap/a/content"] = "known"
    await world.worker.handle_request(delivery)
    assert world.heard == ["whole hi"]
    assert world.conversations.learned == {"configmap/a/content": "known"}


async def test_a_model_that_takes_images_is_shown_the_newest(
    build_llm: BuildLLM, build_delivery: BuildDelivery
) -> None:
    world = World(build_llm(acceptsImages=True))
    await world.worker.handle_request(build_delivery())
    assert world.heard == ["whole hi, up to 20 images"]


async def test_a_lost_text_is_an_error_that_names_it_and_the_model_is_not_asked(
    world: World, build_delivery: BuildDelivery
) -> None:
    world.conversations.error = ContentLostError('TaskRunToolCall "x" is gone')
    await world.worker.handle_request(build_delivery())
    assert world.result.error is not None
    assert (world.result.error.message, world.result.error.reason) == ('TaskRunToolCall "x" is gone', "ContentLost")
    assert world.calls == []


async def test_a_lost_acknowledgement_costs_no_second_call(world: World, build_delivery: BuildDelivery) -> None:
    await world.worker.handle_request(build_delivery())
    await world.worker.handle_request(build_delivery(attempt=2))
    assert (len(world.calls), len(world.published)) == (1, 1)


async def test_the_same_turn_published_anew_is_answered_anew(world: World, build_delivery: BuildDelivery) -> None:
    await world.worker.handle_request(build_delivery())
    await world.worker.handle_request(build_delivery(stored_at=datetime(2026, 1, 2, tzinfo=UTC)))
    assert len(world.calls) == 2


async def test_a_request_that_lay_around_is_answered_only_if_it_is_wanted(
    world: World, build_delivery: BuildDelivery
) -> None:
    world.wanted = False
    await world.worker.handle_request(build_delivery(stored_at=datetime(2026, 1, 2, tzinfo=UTC)))
    assert world.calls == []


async def test_a_request_that_was_published_again_is_answered_only_if_it_is_wanted(
    world: World, build_delivery: BuildDelivery
) -> None:
    world.wanted = False
    await world.worker.handle_request(replace(build_delivery(), new_since=None))
    assert (world.calls, world.asked) == ([], 1)


async def test_a_request_that_took_long_to_be_sent_is_answered_only_if_it_is_wanted(
    world: World, build_delivery: BuildDelivery
) -> None:
    world.wanted = False
    await world.worker.handle_request(replace(build_delivery(), new_since=now() - timedelta(seconds=13)))
    assert (world.calls, world.asked) == ([], 1)


async def test_a_gateway_that_cannot_ask_for_the_task_waits_instead_of_calling(
    world: World, build_delivery: BuildDelivery
) -> None:
    world.api_server_error = UnavailableError("down")
    world.stopping.set()  # which ends the waiting
    with pytest.raises(RetryLater):
        await world.worker.handle_request(build_delivery(attempt=2))
    assert world.calls == []


async def test_a_redelivery_calls_only_if_the_answer_is_wanted(world: World, build_delivery: BuildDelivery) -> None:
    world.wanted = False
    await world.worker.handle_request(build_delivery(attempt=2))
    assert (world.calls, world.published, world.asked) == ([], [], 1)
    world.wanted = True
    await world.worker.handle_request(build_delivery(attempt=3))
    assert world.result.attempt == 3


@pytest.mark.parametrize(
    "error", [RejectedRequestError("no such model", status_code=404), UnusableReplyError("said nothing")]
)
async def test_what_will_never_work_is_an_error_at_once(
    world: World, build_delivery: BuildDelivery, error: ProviderError
) -> None:
    world.outcome = error
    await world.worker.handle_request(build_delivery())
    assert world.result.outcome == "Error"
    assert world.result.error is not None
    assert world.result.error.message == error.message
    assert world.result.error.status_code == error.status_code
    assert not world.result.error.retryable


@pytest.mark.parametrize(("attempt", "low", "high"), [(1, 5, 6.25), (4, 8, 10), (9, 60, 75)])
async def test_what_may_work_later_is_told_and_tried_again(
    world: World, build_delivery: BuildDelivery, attempt: int, low: float, high: float
) -> None:
    world.outcome = TransientProviderError("busy", status_code=429, retry_after=5)
    with pytest.raises(RetryLater) as raised:
        await world.worker.handle_request(build_delivery(attempt=attempt))
    [(subject, notice)] = world.published
    assert subject == f"{RESULT}.retry.{attempt}"
    assert (notice.outcome, notice.attempt, notice.retry_in_seconds) == ("Retrying", attempt, raised.value.delay)
    assert notice.error is not None
    assert (notice.error.message, notice.error.status_code, notice.error.retryable) == ("busy", 429, True)
    assert low <= raised.value.delay <= high


async def test_a_notice_that_cannot_be_published_changes_nothing(world: World, build_delivery: BuildDelivery) -> None:
    world.outcome = TransientProviderError("busy", status_code=500)
    world.notices_fail = True
    with pytest.raises(RetryLater):
        await world.worker.handle_request(build_delivery())


@pytest.mark.failure("llm-gives-up")
@pytest.mark.parametrize(("retries", "attempt", "again"), [(0, 1, False), (2, 2, True), (2, 3, False), (20, 11, True)])
async def test_an_llm_may_say_how_often_it_is_asked_again(
    build_llm: BuildLLM, build_delivery: BuildDelivery, retries: int, attempt: int, again: bool
) -> None:
    world = World(build_llm(provider="mistral", mistral={"maxRetries": retries}))
    world.outcome = TransientProviderError("busy", status_code=503)
    if again:
        with pytest.raises(RetryLater):
            await world.worker.handle_request(build_delivery(attempt=attempt))
    else:
        await world.worker.handle_request(build_delivery(attempt=attempt))
        assert world.result.outcome == "Error"


async def test_it_gives_up_in_the_end(world: World, build_delivery: BuildDelivery) -> None:
    world.outcome = TransientProviderError("busy", status_code=429)
    await world.worker.handle_request(build_delivery(attempt=10))
    assert world.result.outcome == "Error"
    assert world.result.error is not None
    assert world.result.error.message == "gave up after 10 attempts: busy"


async def test_a_defect_of_our_own_is_retried_and_ends_visibly(world: World, build_delivery: BuildDelivery) -> None:
    world.outcome = ZeroDivisionError("sk-1")
    with pytest.raises(RetryLater):
        await world.worker.handle_request(build_delivery())
    world.published.clear()
    await world.worker.handle_request(build_delivery(attempt=10))
    assert world.result.error is not None
    assert "ZeroDivisionError" in world.result.error.message
    assert "sk-1" not in world.result.error.message


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - the fakes have no event to wait for
            await asyncio.sleep(0.001)


async def test_a_missing_secret_is_waited_for(world: World, build_delivery: BuildDelivery) -> None:
    world.secret = None
    async with asyncio.TaskGroup() as group:
        handling = group.create_task(world.worker.handle_request(build_delivery()))
        await until(lambda: bool(world.published))
        world.access.notify_changed()  # some other change: nothing is told twice
        await asyncio.sleep(0)
        world.secret = {"OPENAI_API_KEY": "sk-2"}
        world.access.notify_changed()
        await handling
    notice, result = world.published
    assert notice[0].startswith(f"{RESULT}.retry.1.waiting.")
    assert notice[1].error is not None
    assert 'Secret "openai" not found' in notice[1].error.message
    assert notice[1].retry_in_seconds is None
    assert (result[0], result[1].outcome, world.calls) == (RESULT, "Message", ["sk-2"])


async def test_stopping_gives_a_waiting_request_back(world: World, build_delivery: BuildDelivery) -> None:
    world.secret = None
    async with asyncio.TaskGroup() as group:
        handling = group.create_task(_outcome_of(world.worker.handle_request(build_delivery())))
        await until(lambda: bool(world.published))
        world.stopping.set()
        raised = await handling
    assert isinstance(raised, RetryLater)
    assert raised.delay == 0


async def test_a_deleted_llm_is_told_and_left(world: World, build_delivery: BuildDelivery) -> None:
    world.llm = None
    with pytest.raises(RetryLater):
        await world.worker.handle_request(build_delivery())
    assert world.published[0][1].error is not None
    assert 'LLM "gpt-4o" not found' in world.published[0][1].error.message


async def test_another_llm_of_the_same_name_is_not_called(world: World, build_delivery: BuildDelivery) -> None:
    with pytest.raises(RetryLater):
        await world.worker.handle_request(build_delivery(llm_uid="older-uid"))
    assert world.calls == []


def away() -> UnavailableError:
    return UnavailableError("the API server is away", retry_after=0.001)


@pytest.mark.parametrize("what", ["conversation", "LLM's Secret"])
async def test_while_the_api_server_is_away_the_request_waits_and_costs_no_attempt(
    world: World, build_delivery: BuildDelivery, what: str
) -> None:
    if what == "conversation":
        world.conversations.error = away()
    else:
        world.secret_error = away()
    async with asyncio.TaskGroup() as group:
        handling = group.create_task(world.worker.handle_request(build_delivery()))
        await until(lambda: world.asked >= 3)
        world.conversations.error = world.secret_error = None
        await handling
    (subject, notice), (_, result) = world.published  # told once, however often it was tried
    assert (subject, notice.outcome) == (f"{RESULT}.retry.1", "Retrying")
    assert notice.error is not None
    assert notice.error.message == f"cannot read the {what}: the API server is away"
    assert (result.outcome, result.attempt) == ("Message", 1)


@pytest.mark.parametrize("end", ["unwanted", "stopping"])
async def test_a_request_that_waits_for_the_api_server_is_given_back(
    world: World, build_delivery: BuildDelivery, end: str
) -> None:
    world.conversations.error = away()
    async with asyncio.TaskGroup() as group:
        handling = group.create_task(_outcome_of(world.worker.handle_request(build_delivery())))
        await until(lambda: world.asked >= 1)
        world.wanted = end != "unwanted"
        if end == "stopping":
            world.stopping.set()
        raised = await handling
    assert isinstance(raised, RetryLater)
    assert (raised.delay, world.calls) == (0, [])


async def test_an_attempt_that_waited_before_it_failed_tells_both(
    world: World, build_delivery: BuildDelivery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On subjects of their own: the first notice may still be on its way when the second is published."""
    monkeypatch.setattr("kubechain_llm_gateway.admission.admission.PATIENCE", 0.0)
    answer = await wait_for_the_circuit(world, build_delivery())
    world.outcome = TransientProviderError("overloaded", status_code=500)
    async with asyncio.TaskGroup() as group:
        handling = group.create_task(_outcome_of(world.worker.handle_request(build_delivery())))
        await until(lambda: bool(world.published))
        await answer(now().timestamp())
        assert isinstance(await handling, RetryLater)
    told = [(subject, notice.error.message) for subject, notice in world.published if notice.error is not None]
    assert len({subject for subject, _ in told}) == len(told)
    assert told[0][1].startswith('LLM "gpt-4o": its provider is unavailable')
    assert told[-1] == (f"{RESULT}.retry.1", "overloaded")


async def wait_for_the_circuit(world: World, delivery: Delivery[LLMRequest]) -> Callable[[float], Any]:
    """Opens it; the function that is returned lets the provider answer again."""
    assert world.llm is not None
    await world.board.change(world.llm.uid, lambda health: trip(health, 1, "cannot reach it", 1.0, now().timestamp()))
    return lambda at: world.board.change("llm-uid", lambda health: answer_probe(health, at))


async def test_while_the_provider_must_not_be_called_the_request_waits_and_costs_no_attempt(
    world: World, build_delivery: BuildDelivery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kubechain_llm_gateway.admission.admission.PATIENCE", 0.0)
    answer = await wait_for_the_circuit(world, build_delivery())
    async with asyncio.TaskGroup() as group:
        handling = group.create_task(world.worker.handle_request(build_delivery()))
        await until(lambda: bool(world.published))
        assert world.calls == []
        await answer(now().timestamp())
        await handling
    (subject, notice), (_, result) = world.published
    assert subject.startswith(f"{RESULT}.retry.1.waiting.")
    assert (notice.outcome, notice.retry_in_seconds) == ("Retrying", None)
    assert notice.error is not None
    assert notice.error.message.startswith('LLM "gpt-4o": its provider is unavailable (cannot reach it)')
    assert (result.outcome, result.attempt) == ("Message", 1)


async def test_a_request_that_waits_for_its_provider_is_given_back_when_the_process_ends(
    world: World, build_delivery: BuildDelivery
) -> None:
    await wait_for_the_circuit(world, build_delivery())
    async with asyncio.TaskGroup() as group:
        handling = group.create_task(_outcome_of(world.worker.handle_request(build_delivery())))
        await until(lambda: world.admission.find_block(build_llm_of(world)) is not None)
        world.stopping.set()
        raised = await handling
    assert isinstance(raised, RetryLater)
    assert (raised.delay, world.calls) == (0, [])


def build_llm_of(world: World) -> LLM:
    assert world.llm is not None
    return world.llm


# --- fallbacks ---


@pytest.fixture
def backed(world: World, build_llm: BuildLLM) -> World:
    """An LLM with fallbacks ``lost``, which does not exist, ``second`` and ``third``; each asks for its own model."""
    names = [{"name": name} for name in ("lost", "second", "third")]
    world.llm = build_llm(fallbacks=names, parameters={"model": "first"})
    for name in ("second", "third"):
        metadata = {"name": name, "uid": f"uid-{name}"}
        circle = [{"name": "gpt-4o"}]
        world.others[name] = build_llm(metadata=metadata, parameters={"model": name}, fallbacks=circle)
    world.others["gpt-4o"] = world.llm
    world.get = lambda namespace, name: world.others.get(name)  # type: ignore[method-assign]
    return world


async def test_a_fallback_answers_for_an_llm_that_does_not(backed: World, build_delivery: BuildDelivery) -> None:
    backed.outcomes["first"] = KeyRefusedError("Incorrect API key provided.", status_code=401)
    await backed.worker.handle_request(build_delivery())
    assert backed.models == ["first", "second"]
    result = backed.result
    assert (result.outcome, result.fallback_reason) == ("Message", "Incorrect API key provided.")
    assert result.answered_by == ObjectRef(namespace="default", name="second", uid="uid-second")
    assert (result.llm is not None and result.llm.name) == "gpt-4o"


async def test_an_llm_that_answers_needs_none(backed: World, build_delivery: BuildDelivery) -> None:
    await backed.worker.handle_request(build_delivery())
    assert (backed.models, backed.result.answered_by, backed.result.fallback_reason) == (["first"], None, "")


async def test_a_bad_request_goes_nowhere_else(backed: World, build_delivery: BuildDelivery) -> None:
    backed.outcomes["first"] = RejectedRequestError("too long", status_code=400)
    await backed.worker.handle_request(build_delivery())
    assert (backed.models, backed.result.outcome) == (["first"], "Error")


async def test_a_fallback_that_fails_leaves_it_to_the_next(backed: World, build_delivery: BuildDelivery) -> None:
    for name in ("first", "second"):
        backed.outcomes[name] = TransientProviderError("Overloaded", status_code=529)
    await backed.worker.handle_request(build_delivery())
    assert backed.models == ["first", "second", "third"]
    assert backed.result.answered_by is not None
    assert backed.result.answered_by.name == "third"


async def test_when_nobody_answers_it_is_tried_again_if_anybody_may_later(
    backed: World, build_delivery: BuildDelivery
) -> None:
    backed.outcome = KeyRefusedError("no", status_code=401)
    backed.outcomes["third"] = TransientProviderError("busy", status_code=500)
    with pytest.raises(RetryLater):
        await backed.worker.handle_request(build_delivery())
    assert backed.models == ["first", "second", "third"]
    [(_, notice)] = backed.published
    assert notice.error is not None
    assert notice.error.message == "busy"


async def test_when_nobody_ever_will_the_llms_own_error_counts(backed: World, build_delivery: BuildDelivery) -> None:
    backed.outcome = RejectedRequestError("not for me", status_code=400)
    backed.outcomes["first"] = KeyRefusedError("no key", status_code=401)
    await backed.worker.handle_request(build_delivery())
    assert backed.result.error is not None
    assert (backed.result.error.message, backed.result.error.status_code) == ("no key", 401)


async def test_trouble_that_passes_is_waited_for_until_the_last_attempt(
    backed: World, build_delivery: BuildDelivery
) -> None:
    backed.outcomes["first"] = TransientProviderError("busy", status_code=500)
    with pytest.raises(RetryLater):
        await backed.worker.handle_request(build_delivery(attempt=9))
    assert backed.models == ["first"]
    backed.published.clear()
    await backed.worker.handle_request(build_delivery(attempt=10))
    assert backed.result.answered_by is not None


async def test_a_provider_that_must_not_be_called_is_not_waited_for(
    backed: World, build_delivery: BuildDelivery
) -> None:
    await wait_for_the_circuit(backed, build_delivery())
    await backed.worker.handle_request(build_delivery())
    assert backed.models == ["second"]
    assert "its provider is unavailable (cannot reach it)" in backed.result.fallback_reason


async def test_it_is_waited_for_when_no_fallback_may_be_called_either_and_left_when_one_may(
    backed: World, build_delivery: BuildDelivery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kubechain_llm_gateway.admission.admission.PATIENCE", 0.0)
    monkeypatch.setattr("kubechain_llm_gateway.admission.admission._RECONSIDER", 0.01)
    for uid in (LLM_UID, "uid-second", "uid-third"):
        await backed.board.change(uid, lambda health: trip(health, 1, "down", 1.0, now().timestamp()))
    async with asyncio.TaskGroup() as group:
        handling = group.create_task(backed.worker.handle_request(build_delivery()))
        await until(lambda: bool(backed.published))
        assert backed.models == []
        await backed.board.change("uid-third", lambda health: answer_probe(health, now().timestamp()))
        await handling
    assert backed.models == ["third"]


async def test_a_fallback_that_refuses_the_request_is_no_reason_to_fail_a_task_whose_llm_only_rests(
    backed: World, build_delivery: BuildDelivery
) -> None:
    back = await wait_for_the_circuit(backed, build_delivery())
    for name in ("second", "third"):
        backed.outcomes[name] = RejectedRequestError("too long for me", status_code=400)
    async with asyncio.TaskGroup() as group:
        handling = group.create_task(backed.worker.handle_request(build_delivery()))
        await until(lambda: backed.models == ["second", "third"])
        await back(now().timestamp())
        await handling
    assert (backed.models, backed.result.answered_by) == (["second", "third", "first"], None)


async def test_a_fallback_without_its_secret_is_passed_over(backed: World, build_delivery: BuildDelivery) -> None:
    backed.outcomes["first"] = KeyRefusedError("no", status_code=401)
    spec = backed.others["second"].spec
    other_key = {"secretKeyRef": {"name": "openai", "key": "ANOTHER"}}
    backed.others["second"].spec = spec.model_validate({**spec.model_dump(by_alias=True), "apiKeyFrom": other_key})
    await backed.worker.handle_request(build_delivery())
    assert backed.models == ["first", "third"]


async def test_a_fallback_takes_no_more_at_a_time_than_it_may(backed: World, build_delivery: BuildDelivery) -> None:
    backed.others["second"].spec.max_concurrency = 1
    slots = backed.worker._fallbacks.slots_of(backed.others["second"])
    assert slots is backed.worker._fallbacks.slots_of(backed.others["second"])
    backed.outcomes["first"] = KeyRefusedError("no", status_code=401)
    async with slots, asyncio.TaskGroup() as group:
        handling = group.create_task(backed.worker.handle_request(build_delivery()))
        await until(lambda: backed.models == ["first"])
        await asyncio.sleep(0.01)
        assert backed.models == ["first"]
        slots.release()
        await handling
        await slots.acquire()
    assert backed.models == ["first", "second"]


@pytest.mark.parametrize("change", ["deleted", "edited"])
async def test_a_fallback_is_called_as_it_is_once_it_is_its_turn(
    backed: World, build_delivery: BuildDelivery, build_llm: BuildLLM, change: str
) -> None:
    backed.others["second"].spec.max_concurrency = 1
    slots = backed.worker._fallbacks.slots_of(backed.others["second"])
    backed.outcomes["first"] = KeyRefusedError("no", status_code=401)
    async with asyncio.TaskGroup() as group:
        async with slots:
            handling = group.create_task(backed.worker.handle_request(build_delivery()))
            await until(lambda: backed.models == ["first"])
            if change == "deleted":
                del backed.others["second"]
            else:
                metadata = {"name": "second", "uid": "uid-second", "generation": 2}
                backed.others["second"] = build_llm(metadata=metadata, parameters={"model": "better"})
        await handling
    assert backed.models == ["first", "third" if change == "deleted" else "better"]


async def test_what_a_provider_said_for_itself_reaches_no_other(backed: World, build_delivery: BuildDelivery) -> None:
    own = Message(role="assistant", content="a", provider_data={"provider": "anthropic", "content": [1]})
    theirs = Message(role="assistant", content="b", provider_data={"provider": "anthropic", "llm": "uid-second"})
    delivery = build_delivery()
    delivery.message.messages += [own, theirs]
    await backed.worker.handle_request(delivery)
    assert backed.data == [None, own.provider_data, None]
    data = {"provider": "openai", "host": "x"}
    backed.outcome = Completion(Message(role="assistant", content="c", provider_data=data), TokenUsage(), "stop")
    backed.outcomes["first"] = KeyRefusedError("no", status_code=401)
    backed.published.clear()
    await backed.worker.handle_request(replace(delivery, stored_at=datetime(2026, 1, 2, tzinfo=UTC)))
    assert backed.data == [None, None, theirs.provider_data]
    assert backed.result.message is not None
    assert backed.result.message.provider_data == {**data, "llm": "uid-second"}


async def test_clients_are_kept_until_the_key_or_the_spec_changes(
    world: World, build_delivery: BuildDelivery, build_llm: BuildLLM
) -> None:
    assert world.llm is not None
    first = await world.access.open_provider(world.llm)
    assert await world.access.open_provider(world.llm) is first
    world.secret = {"OPENAI_API_KEY": "sk-2"}
    second = await world.access.open_provider(world.llm)
    assert second is not first
    world.llm = build_llm(metadata={"generation": 2})
    assert await world.access.open_provider(world.llm) is not second


def poison(subject: str, data: bytes) -> Poison:
    return Poison(subject, data, "v 9 is not known", 1, None)


@pytest.mark.parametrize("data", [b'{"task": {"name": "another", "uid": "another"}}', b"\xff", b"[]"])
def test_an_unreadable_request_fails_the_task_of_its_subject(data: bytes) -> None:
    result = build_poison_result(poison("kubechain.llm.request.llm-uid.default.task-uid.3.c0ffee", data))
    assert result is not None
    assert (result.task.name, result.task.uid, result.task.namespace, result.turn) == ("", "task-uid", "default", 3)
    assert result.error is not None
    assert result.error.message == "llm-gateway cannot read the request: v 9 is not known"


def test_a_subject_that_tells_nothing_has_no_result() -> None:
    assert build_poison_result(poison("kubechain.llm.request.x", b"")) is None


async def _outcome_of(work: Any) -> Exception | None:
    try:
        await work
    except Exception as error:
        return error
    return None


async def test_a_result_that_the_bus_refuses_is_not_taken_for_published(
    world: World, build_delivery: BuildDelivery, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish = world.publish_until_stored

    async def refuse(*_: Any, **__: Any) -> None:
        raise BusUnavailableError("down")

    monkeypatch.setattr(world, "publish_until_stored", refuse)
    with pytest.raises(BusUnavailableError):
        await world.worker.handle_request(build_delivery())
    monkeypatch.setattr(world, "publish_until_stored", publish)
    await world.worker.handle_request(build_delivery(attempt=2))
    assert world.result.outcome == "Message"


async def test_a_call_that_waited_is_made_to_the_llm_as_it_is_by_then(
    world: World, build_delivery: BuildDelivery, build_llm: BuildLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An edit lets those go that wait for the provider of before: to the new one."""
    monkeypatch.setattr("kubechain_llm_gateway.admission.admission.PATIENCE", 0.0)
    await wait_for_the_circuit(world, build_delivery())
    async with asyncio.TaskGroup() as group:
        handling = group.create_task(world.worker.handle_request(build_delivery()))
        await until(lambda: bool(world.published))
        world.llm = build_llm(metadata={"generation": 2}, parameters={"model": "newer"})
        world.admission.handle_change(world.llm)
        await handling
    assert world.models == ["newer"]


async def test_a_secret_that_goes_while_a_call_waits_is_waited_for(
    world: World, build_delivery: BuildDelivery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kubechain_llm_gateway.admission.admission.PATIENCE", 0.0)
    answer = await wait_for_the_circuit(world, build_delivery())
    async with asyncio.TaskGroup() as group:
        handling = group.create_task(world.worker.handle_request(build_delivery()))
        await until(lambda: bool(world.published))
        world.secret = None
        await answer(now().timestamp())
        await until(lambda: len(world.published) == 2)
        assert world.calls == []
        world.secret = {"OPENAI_API_KEY": "sk-2"}
        world.access.notify_changed()
        await handling
    assert world.calls == ["sk-2"]


async def test_a_call_that_waited_for_long_is_made_only_if_its_answer_is_still_wanted(
    world: World, build_delivery: BuildDelivery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kubechain_llm_gateway.admission.admission.PATIENCE", 0.0)
    monkeypatch.setattr("kubechain_llm_gateway.calls.request_worker._FRESH", timedelta())
    delivery = build_delivery()
    answer = await wait_for_the_circuit(world, delivery)
    async with asyncio.TaskGroup() as group:
        handling = group.create_task(_outcome_of(world.worker.handle_request(delivery)))
        await until(lambda: bool(world.published))
        world.wanted = False
        await answer(now().timestamp())
        raised = await handling
    assert isinstance(raised, RetryLater)
    assert world.calls == []
