from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import pytest

from kubechain_common.api.v1alpha1 import LLM
from kubechain_common.api.v1alpha1.conversation import Message
from kubechain_common.api.v1alpha1.llm import LLMParameters, LLMSpec
from kubechain_common.api.v1alpha1.status import ReadinessStatus
from kubechain_common.kube.errors import ForbiddenError
from kubechain_common.messages import ResponseFormat, ToolDefinition
from kubechain_common.runtime.clock import epoch
from kubechain_common.runtime.validated_kind import Trouble, Verdict
from kubechain_common.testing.entries import InMemoryEntries
from kubechain_llm_gateway.admission.admission import Admission
from kubechain_llm_gateway.admission.circuit import answer_probe, trip
from kubechain_llm_gateway.admission.fallback_calls import FallbackCalls
from kubechain_llm_gateway.admission.health_board import HealthBoard
from kubechain_llm_gateway.admission.metering import Meter
from kubechain_llm_gateway.admission.rate_limiter import RateLimiter
from kubechain_llm_gateway.llm_validation import LLMValidation
from kubechain_llm_gateway.llms.access import LLMAccess
from kubechain_llm_gateway.llms.credentials import Credentials
from kubechain_llm_gateway.providers.base import Completion, OnDelta, Validation
from kubechain_llm_gateway.providers.errors import KeyRefusedError, ProviderError, UnreachableProviderError
from kubechain_llm_gateway.providers.registry import ProviderRegistry

OK = "OpenAI API key validated successfully"


class World:
    """A Secret and a provider, both in memory."""

    def __init__(self) -> None:
        self.secret: dict[str, str] | None = {"OPENAI_API_KEY": "sk-1"}
        self.forbidden = False
        self.outcome: Validation | ProviderError = Validation(OK)
        self.refusal: Exception | None = None
        self.keys: list[str | None] = []
        self.written: list[ReadinessStatus] = []
        self.board = HealthBoard(InMemoryEntries())
        stopping = asyncio.Event()
        meter = Meter(RateLimiter(InMemoryEntries(), epoch), self.find, epoch, stopping)
        self.fallbacks = FallbackCalls(self, Admission(self.board, meter, self.find, stopping))
        self.llms: dict[str, LLM] = {}
        self.validation = LLMValidation(LLMAccess(self, self, self), self.board, self.fallbacks, self.write)

    async def validate_llm(self, llm: LLM) -> str | Trouble | Verdict:
        credentials = await self.validation.prepare(llm)
        return credentials if isinstance(credentials, Verdict) else await self.validation.ask(llm, credentials)

    def find(self, uid: str) -> LLM | None:
        return next((llm for llm in self.llms.values() if llm.uid == uid), None)

    def get(self, namespace: str, name: str) -> LLM | None:
        return self.llms.get(name)

    async def read(self, namespace: str, name: str) -> dict[str, str] | None:
        if self.forbidden:
            raise ForbiddenError("no")
        return self.secret

    async def build(self, spec: LLMSpec, api_key: str | None) -> World:
        if self.refusal is not None:
            raise self.refusal
        self.keys.append(api_key)
        return self

    async def validate(self) -> Validation:
        if isinstance(self.outcome, ProviderError):
            raise self.outcome
        return self.outcome

    async def complete(
        self,
        messages: Sequence[Message],
        tools: Sequence[ToolDefinition],
        parameters: LLMParameters,
        on_delta: OnDelta | None,
        response_format: ResponseFormat | None,
    ) -> Completion:
        raise AssertionError("a validation must not pay for a completion")

    async def write(self, llm: LLM, status: ReadinessStatus) -> LLM:
        self.written.append(status)
        return llm


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def llm(build_llm: Callable[..., LLM]) -> LLM:
    return build_llm()


async def test_the_provider_is_asked_with_the_key_of_now(world: World, llm: LLM) -> None:
    first = await world.validation.prepare(llm)
    assert await world.validate_llm(llm) == OK
    world.secret = {"OPENAI_API_KEY": "sk-2"}
    second = await world.validation.prepare(llm)
    assert await world.validate_llm(llm) == OK
    assert world.keys == ["sk-1", "sk-2"]
    assert isinstance(first, Credentials)
    assert isinstance(second, Credentials)
    assert first.digest != second.digest


async def test_a_missing_secret_is_told_without_asking_anybody(world: World, llm: LLM) -> None:
    world.secret = None
    sentence = 'Secret "openai" not found in namespace "default": create it with key OPENAI_API_KEY'
    assert await world.validate_llm(llm) == Verdict("Error", "SecretValidationFailed", sentence)
    assert world.keys == []


async def test_a_secret_that_may_not_be_read_is_told(world: World, llm: LLM) -> None:
    world.forbidden = True
    sentence = 'llm-gateway may not read Secret "openai": grant it get and watch on secrets'
    assert await world.validate_llm(llm) == Verdict("Error", "SecretValidationFailed", sentence)


async def test_an_unusable_spec_is_told_without_asking_anybody(world: World, build_llm: Callable[..., LLM]) -> None:
    verdict = await world.validate_llm(build_llm(parameters={}))
    assert verdict == Verdict("Error", "ValidationFailed", "parameters.model is required: name the model to use")
    assert world.keys == []


async def test_a_refused_key_is_told(world: World, llm: LLM) -> None:
    world.outcome = KeyRefusedError("Bad key.", status_code=401)
    assert await world.validate_llm(llm) == Trouble("OpenAI refused the API key (401: Bad key.)", retryable=False)


async def test_trouble_on_the_way_is_told(world: World, llm: LLM) -> None:
    world.outcome = UnreachableProviderError("cannot reach it", retry_after=7)
    assert await world.validate_llm(llm) == Trouble("OpenAI API validation failed: cannot reach it", True, 7)


async def test_an_address_that_the_sdk_does_not_take_is_told(world: World, build_llm: Callable[..., LLM]) -> None:
    """The API server takes it for a URL."""
    registry = ProviderRegistry()
    llm = build_llm(parameters={"model": "m", "baseUrl": "http://10.0.0.256:8000/v1"})
    world.validation = LLMValidation(LLMAccess(world, world, registry), world.board, world.fallbacks, world.write)
    trouble = await world.validate_llm(llm)
    assert trouble == Trouble("parameters.baseUrl can not be used: Invalid IPv4 address: '10.0.0.256'", False)
    await registry.aclose()


async def test_what_else_keeps_a_client_from_being_made_is_told_without_the_key(world: World, llm: LLM) -> None:
    world.refusal = ValueError("sk-1 is no key")
    trouble = await world.validate_llm(llm)
    assert trouble == Trouble("no client can be made of this LLM's spec and key (ValueError)", False)


async def test_a_provider_that_nobody_calls_at_the_moment_is_told_without_asking_it(world: World, llm: LLM) -> None:
    await world.board.change(llm.uid, lambda health: trip(health, 1, "cannot reach http://x: Connection refused", 1, 2))
    verdict = await world.validate_llm(llm)
    sentence = "OpenAI is unavailable: cannot reach http://x: Connection refused. It is asked again every few seconds"
    assert isinstance(verdict, Verdict)
    assert (verdict.status, verdict.reason) == ("Error", "ProviderUnavailable")
    assert verdict.detail.startswith(sentence)
    assert world.keys == []
    await world.board.change(llm.uid, lambda health: answer_probe(health, 3))
    assert await world.validate_llm(llm) == OK


async def test_an_llm_with_a_fallback_that_is_ready_can_be_used_all_the_same(
    world: World, build_llm: Callable[..., LLM]
) -> None:
    llm = build_llm(fallbacks=[{"name": "lost"}, {"name": "unready"}, {"name": "backup"}, {"name": "other"}])
    for name, ready in (("unready", False), ("backup", True), ("other", True)):
        world.llms[name] = build_llm(metadata={"name": name, "uid": f"uid-{name}"}, status={"ready": ready})
    await world.board.change(llm.uid, lambda health: trip(health, 1, "Connection refused", 1, 2))
    sentence = 'OpenAI is unavailable: Connection refused. LLM "backup" answers in its place until it is back'
    assert await world.validate_llm(llm) == Verdict("Ready", "UsingFallback", sentence)
    await world.board.change("uid-backup", lambda health: trip(health, 1, "too", 1, 2))
    verdict = await world.validate_llm(llm)
    assert isinstance(verdict, Verdict)
    assert '"other"' in verdict.detail
    await world.board.change("uid-other", lambda health: trip(health, 1, "too", 1, 2))
    verdict = await world.validate_llm(llm)
    assert isinstance(verdict, Verdict)
    assert (verdict.status, verdict.reason) == ("Error", "ProviderUnavailable")


@pytest.mark.parametrize(
    ("failures", "retry_after", "delay"),
    [(1, None, 1), (2, None, 2), (6, None, 32), (7, None, 60), (1, 7, 7), (1, 900, 60)],
)
def test_the_back_off_doubles_up_to_a_minute(
    world: World, failures: int, retry_after: float | None, delay: float
) -> None:
    assert delay <= world.validation.retry_delay(failures, retry_after) <= delay * 1.25


async def test_the_status_is_written(world: World, llm: LLM) -> None:
    status = llm.status.mark("Ready", "ValidationSucceeded", OK, generation=1, now=datetime(2026, 11, 23, tzinfo=UTC))
    await world.validation.write(llm, status)
    assert world.written == [status]
