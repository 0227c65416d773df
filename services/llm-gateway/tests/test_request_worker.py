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
from kubechain_llm_gateway.admission import Admission
from kubechain_llm_gateway.circuit import answer_probe, trip
from kubechain_llm_gateway.health_board import HealthBoard
from kubechain_llm_gateway.llm_access import LLMAccess
from kubechain_llm_gateway.metering import Meter
from kubechain_llm_gateway.providers.base import Completion, OnDelta, Validation
from kubechain_llm_gateway.providers.errors import (
    ProviderError,
    RejectedRequestError,
    TransientProviderError,
    UnusableReplyError,
)
from kubechain_llm_gateway.rate_limiter import RateLimiter
from kubechain_llm_gateway.request_worker import RequestWorker
from kubechain_llm_gateway.results import build_poison_result

RESULT = "kubechain.llm.result.default.task-uid.1"
ANSWER = Completion(Message(role="assistant", content="hello"), TokenUsage(input_tokens=1), "stop")

BuildDelivery = Callable[..., Delivery[LLMRequest]]
BuildLLM = Callable[..., LLM]


class World:
    """The bus, the LLMs, the Secrets, the Task and the provider, all in memory."""

    def __init__(self, llm: LLM) -> None:
        self.llm: LLM | None = llm
        self.secret: dict[str, str] | None = {"OPENAI_API_KEY": "sk-1"}
        self.outcome: Completion | Exception = ANSWER
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
        meter = Meter(RateLimiter(InMemoryEntries(), epoch), lambda uid: self.llm, epoch, self.stopping)
        self.admission = Admission(self.board, meter, lambda uid: self.llm, self.stopping)
        self.worker = RequestWorker(self, self.access, self.admission, self, self.conversations, self.stopping)

    def get(self, namespace: str, name: str) -> LLM | None:
        return self.llm

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

    async def publish(
        self,
        subject: str,
        message: Envelope,
        *,
        msg_id: str | None,
        trace: SpanContext | None = None,
        once: bool = True,
    ) -> None:
        if self.notices_fail:
            raise BusUnavailableError("down")
        await self.publish_until_stored(subject, message, msg_id=msg_id, trace=trace, once=once)

    async def publish_until_stored(
        self,
        subject: str,
        message: Envelope,
        *,
        msg_id: str | None,
        trace: SpanContext | None = None,
        once: bool = True,
    ) -> None:
        assert isinstance(message, LLMResult)
        assert msg_id is None
        assert once
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
        on_delta: OnDelta | None = None,
        response_format: ResponseFormat | None = None,
    ) -> Completion:
        self._world.calls.append(self._api_key)
        self._world.heard = [message.content for message in messages]
        if isinstance(self._world.outcome, Exception):
            raise self._world.outcome
        return self._world.outcome


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
    assert notice[0] == f"{RESULT}.retry.1"
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


async def wait_for_the_circuit(world: World, delivery: Delivery[LLMRequest]) -> Callable[[float], Any]:
    """Opens it; the function that is returned lets the provider answer again."""
    assert world.llm is not None
    await world.board.change(world.llm.uid, lambda health: trip(health, 1, "cannot reach it", 1.0, now().timestamp()))
    return lambda at: world.board.change("llm-uid", lambda health: answer_probe(health, at))


async def test_while_the_provider_must_not_be_called_the_request_waits_and_costs_no_attempt(
    world: World, build_delivery: BuildDelivery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kubechain_llm_gateway.admission.PATIENCE", 0.0)
    answer = await wait_for_the_circuit(world, build_delivery())
    async with asyncio.TaskGroup() as group:
        handling = group.create_task(world.worker.handle_request(build_delivery()))
        await until(lambda: bool(world.published))
        assert world.calls == []
        await answer(now().timestamp())
        await handling
    (subject, notice), (_, result) = world.published
    assert (subject, notice.outcome, notice.retry_in_seconds) == (f"{RESULT}.retry.1", "Retrying", None)
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
    result = build_poison_result(poison("kubechain.llm.request.llm-uid.default.task-uid.3", data))
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
