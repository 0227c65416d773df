"""One span and one observation per metric for each call, however it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client import REGISTRY

from kubechain_common.api.v1alpha1 import LLM
from kubechain_common.api.v1alpha1.conversation import Message, TokenUsage
from kubechain_common.telemetry import tracing
from kubechain_llm_gateway.calls import instrumentation
from kubechain_llm_gateway.calls.instrumentation import observe_call
from kubechain_llm_gateway.providers.base import Completion, OnDelta
from kubechain_llm_gateway.providers.errors import TransientProviderError

BuildLLM = Callable[..., LLM]
SAID = Completion(
    Message(role="assistant", content="secret answer"),
    TokenUsage(input_tokens=5, output_tokens=2),
    "stop",
    response_id="r1",
    response_model="m-2026",
)
TALK = [Message(role="user", content="secret question")]


class Recorder:
    """Keeps the spans that are started."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.kinds: list[str] = []
        self.attributes: dict[str, Any] = {}

    def start(self, name: str, context: Any, parent: Any, kind: str, attributes: Any) -> Recorder:
        self.names.append(name)
        self.kinds.append(kind)
        self.attributes.update(attributes)
        return self

    def set_attribute(self, key: str, value: Any) -> None:
        self.attributes[key] = value

    def record_error(self, message: str, error: BaseException | None) -> None:
        self.attributes["error"] = message

    def end(self) -> None:
        self.attributes["ended"] = True


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder = Recorder()
    monkeypatch.setattr(tracing, "_recorder", recorder)
    return recorder


@pytest.fixture
def llm(build_llm: BuildLLM, request: pytest.FixtureRequest) -> LLM:
    """An LLM with a model of the test's own, so that its metrics are the test's own too."""
    return build_llm(parameters={"model": request.node.name, "baseUrl": "http://llm.example/v1"})


def count(metric: str, llm: LLM, **labels: str) -> float:
    assert llm.spec.parameters is not None
    common = {
        "gen_ai_operation_name": "chat",
        "gen_ai_provider_name": "openai",
        "gen_ai_request_model": llm.spec.parameters.model or "",
        "server_address": "llm.example",
    }
    return REGISTRY.get_sample_value(f"gen_ai_client_{metric}", {**common, **labels}) or 0.0


async def answer(hear: OnDelta) -> Completion:
    hear("secret ")
    await asyncio.sleep(0)
    hear("answer")
    return SAID


async def test_a_call_that_ends_well(llm: LLM, recorder: Recorder) -> None:
    heard: list[str] = []
    assert await observe_call(llm, None, answer, messages=TALK, on_delta=heard.append) is SAID
    assert heard == ["secret ", "answer"]
    assert recorder.names == ["chat test_a_call_that_ends_well"]
    assert recorder.kinds == ["client"]
    assert recorder.attributes["gen_ai.response.id"] == "r1"
    assert recorder.attributes["ended"]
    assert "secret" not in str(recorder.attributes)
    model = {"gen_ai_response_model": "m-2026"}
    assert count("operation_duration_seconds_count", llm, error_type="", **model) == 1
    assert count("operation_time_to_first_chunk_seconds_count", llm) == 1
    assert count("token_usage_sum", llm, gen_ai_token_type="input", **model) == 5
    assert count("token_usage_bucket", llm, gen_ai_token_type="output", le="4.0", **model) == 1


async def test_the_conversation_is_in_the_span_if_somebody_wants_it(
    llm: LLM, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECHAIN_CAPTURE_MESSAGE_CONTENT", "true")
    await observe_call(llm, None, answer, messages=TALK, on_delta=None)
    assert "secret question" in recorder.attributes["gen_ai.input.messages"]
    assert "secret answer" in recorder.attributes["gen_ai.output.messages"]


async def test_a_call_that_fails(llm: LLM, recorder: Recorder) -> None:
    async def fail(hear: OnDelta) -> Completion:
        raise TransientProviderError("busy", status_code=529)

    with pytest.raises(TransientProviderError):
        await observe_call(llm, None, fail, messages=TALK, on_delta=None)
    assert recorder.attributes["error.type"] == "529"
    assert count("operation_duration_seconds_count", llm, error_type="529", gen_ai_response_model="") == 1
    assert count("operation_time_to_first_chunk_seconds_count", llm) == 0


async def test_a_defect_of_our_own_has_a_type_too(llm: LLM, recorder: Recorder) -> None:
    async def fail(hear: OnDelta) -> Completion:
        raise KeyError("x")

    with pytest.raises(KeyError):
        await observe_call(llm, None, fail, messages=TALK, on_delta=None)
    assert recorder.attributes["error.type"] == "KeyError"


def test_a_server_that_makes_models_up_does_not_fill_the_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instrumentation, "_models", set())
    known = {instrumentation._known_model(f"made-up-{i}") for i in range(1000)}
    assert len(known) <= 101
    assert "_OTHER" in known
