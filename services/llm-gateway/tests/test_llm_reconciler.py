from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from kubechain_common.api.v1alpha1 import LLM
from kubechain_common.api.v1alpha1.conversation import Message
from kubechain_common.api.v1alpha1.llm import LLMParameters, LLMSpec, LLMStatus
from kubechain_common.api.v1alpha1.meta import Resource
from kubechain_common.kube.errors import ForbiddenError
from kubechain_common.messages import ToolDefinition
from kubechain_llm_gateway.llm_access import LLMAccess
from kubechain_llm_gateway.llm_reconciler import LLMReconciler
from kubechain_llm_gateway.providers.base import Completion, Validation
from kubechain_llm_gateway.providers.errors import KeyRefusedError, ProviderError, UnreachableProviderError

KEY = ("default", "gpt-4o")
OK = "OpenAI API key validated successfully"


class FakeProvider:
    def __init__(self, world: World) -> None:
        self._world = world

    async def validate(self) -> Validation:
        self._world.validations += 1
        if isinstance(self._world.outcome, ProviderError):
            raise self._world.outcome
        return self._world.outcome

    async def complete(
        self, messages: Sequence[Message], tools: Sequence[ToolDefinition], parameters: LLMParameters
    ) -> Completion:
        raise AssertionError("a validation must not pay for a completion")


class World:
    """LLMs, Secrets and a provider, all in memory."""

    def __init__(self) -> None:
        self.llms: dict[tuple[str, str], LLM] = {}
        self.secrets: dict[tuple[str, str], dict[str, str]] = {("default", "openai"): {"OPENAI_API_KEY": "sk-1"}}
        self.outcome: Validation | ProviderError = Validation(OK)
        self.validations = 0
        self.forbidden = False
        self.keys: list[str | None] = []
        self.writes: list[LLMStatus] = []
        self.events: list[tuple[str, str, str]] = []
        self.access = LLMAccess(self, self, self)
        self.reconciler = self.restart()

    def restart(self) -> LLMReconciler:
        self.reconciler = LLMReconciler(self, self.access, self.write, self, lambda: datetime(2026, 11, 23, tzinfo=UTC))
        return self.reconciler

    def get(self, namespace: str, name: str) -> LLM | None:
        return self.llms.get((namespace, name))

    async def read(self, namespace: str, name: str) -> dict[str, str] | None:
        if self.forbidden:
            raise ForbiddenError("no")
        return self.secrets.get((namespace, name))

    async def build(self, spec: LLMSpec, api_key: str | None) -> FakeProvider:
        self.keys.append(api_key)
        return FakeProvider(self)

    async def write(self, llm: LLM, status: LLMStatus) -> LLM:
        self.writes.append(status)
        self.llms[llm.key] = written = llm.model_copy(update={"status": status})
        return written

    def event(self, obj: Resource, event_type: str, reason: str, message: str) -> None:
        self.events.append((event_type, reason, message))


@pytest.fixture
def world(build_llm: Callable[..., LLM]) -> World:
    world = World()
    world.llms[KEY] = build_llm()
    return world


async def test_a_new_llm_gets_one_write_and_one_event_and_then_rests(world: World) -> None:
    for _ in range(3):
        assert await world.reconciler.reconcile(KEY) is None
    assert [(s.ready, s.status, s.status_detail) for s in world.writes] == [(True, "Ready", OK)]
    assert world.events == [("Normal", "ValidationSucceeded", OK)]
    assert world.validations == 1


async def test_a_restart_validates_once_and_writes_nothing(world: World) -> None:
    await world.reconciler.reconcile(KEY)
    world.restart()
    await world.reconciler.reconcile(KEY)
    assert (len(world.writes), len(world.events), world.validations) == (1, 1, 2)


async def test_a_missing_secret_is_told_and_its_arrival_heals(world: World) -> None:
    secret = world.secrets.pop(("default", "openai"))
    await world.reconciler.reconcile(KEY)
    await world.reconciler.reconcile(KEY)
    assert [s.status for s in world.writes] == ["Error"]
    assert [e[:2] for e in world.events] == [("Warning", "SecretValidationFailed")]
    assert world.validations == 0
    world.secrets["default", "openai"] = secret
    await world.reconciler.reconcile(KEY)
    assert world.writes[-1].ready


async def test_a_secret_that_may_not_be_read_is_told(world: World) -> None:
    world.forbidden = True
    await world.reconciler.reconcile(KEY)
    assert "may not read Secret" in world.writes[-1].status_detail


async def test_a_rotated_key_is_validated_anew(world: World) -> None:
    await world.reconciler.reconcile(KEY)
    world.secrets["default", "openai"] = {"OPENAI_API_KEY": "sk-2"}
    await world.reconciler.reconcile(KEY)
    assert world.keys == ["sk-1", "sk-2"]
    assert (len(world.writes), world.validations) == (1, 2)
    assert world.events == [("Normal", "ValidationSucceeded", OK)] * 2
    world.outcome = KeyRefusedError("Bad key.", status_code=401)
    world.secrets["default", "openai"] = {"OPENAI_API_KEY": "sk-3"}
    again = await world.reconciler.reconcile(KEY)
    assert again is not None  # a refusal may be the provider's own trouble, so it is asked again now and then
    assert again.requeue_after == pytest.approx(300, abs=1)
    assert world.writes[-1].status == "Error"
    assert world.events[-1] == ("Warning", "ValidationFailed", "OpenAI refused the API key (401: Bad key.)")


async def test_an_edited_spec_is_validated_anew(world: World, build_llm: Callable[..., LLM]) -> None:
    await world.reconciler.reconcile(KEY)
    status = world.llms[KEY].status.model_dump(mode="json")
    world.llms[KEY] = build_llm(metadata={"generation": 2}, parameters={"model": "gpt-5"}, status=status)
    await world.reconciler.reconcile(KEY)
    assert (world.validations, world.writes[-1].observed_generation) == (2, 2)


async def test_trouble_is_looked_at_again_with_back_off_but_not_at_once(world: World) -> None:
    world.outcome = UnreachableProviderError("cannot reach it")
    first = await world.reconciler.reconcile(KEY)
    echo = await world.reconciler.reconcile(KEY)
    assert first is not None
    assert echo is not None
    assert 1 <= (first.requeue_after or 0) <= 1.25
    assert (echo.requeue_after or 0) <= (first.requeue_after or 0)
    assert (world.validations, len(world.writes), len(world.events)) == (1, 1, 1)


async def test_back_off_doubles_and_ends_with_success(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.outcome = UnreachableProviderError("cannot reach it")
    clock = asyncio.get_running_loop().time()
    monkeypatch.setattr("kubechain_llm_gateway.llm_reconciler._loop_time", lambda: clock)
    monkeypatch.setattr("random.random", lambda: 0.0)
    delays = []
    for _ in range(8):
        result = await world.reconciler.reconcile(KEY)
        assert result is not None
        delays.append(round(result.requeue_after or 0))
        clock += result.requeue_after or 0
    assert delays == [1, 2, 4, 8, 16, 32, 60, 60]
    assert (len(world.writes), len(world.events)) == (1, 1)
    world.outcome = Validation(OK)
    assert await world.reconciler.reconcile(KEY) is None
    assert world.writes[-1].ready


@pytest.mark.parametrize("gone", [True, False])
async def test_what_is_gone_is_left_alone(world: World, build_llm: Callable[..., LLM], gone: bool) -> None:
    if gone:
        world.llms.clear()
    else:
        world.llms[KEY] = build_llm(metadata={"deletionTimestamp": "2026-11-23T00:00:00Z"})
    assert await world.reconciler.reconcile(KEY) is None
    assert world.writes == []


async def test_an_unusable_spec_is_told_without_asking_anybody(world: World, build_llm: Callable[..., Any]) -> None:
    world.llms[KEY] = build_llm(provider="mistral")
    await world.reconciler.reconcile(KEY)
    assert 'provider "mistral" is not supported' in world.writes[-1].status_detail
    assert (world.validations, world.events[0][:2]) == (0, ("Warning", "ValidationFailed"))
