"""What a span says of a call, and that it says nothing of the conversation unless somebody wants it to."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given

from kubechain_common.api.v1alpha1 import LLM
from kubechain_common.api.v1alpha1.conversation import Message, MessageToolCall, TokenUsage, ToolCallFunction
from kubechain_common.testing.arbitrary import fuzz, models, resources
from kubechain_llm_gateway.calls.genai_attributes import (
    build_input_attributes,
    build_output_attributes,
    build_request_attributes,
    build_response_attributes,
    captures_messages,
)
from kubechain_llm_gateway.providers.base import Completion, identify

BuildLLM = Callable[..., LLM]
USAGE = TokenUsage(input_tokens=5, output_tokens=2, total_tokens=7, cached_input_tokens=4)


def test_a_request_is_described_by_its_parameters_and_its_server(build_llm: BuildLLM) -> None:
    parameters = {
        "model": "gpt-4o",
        "baseUrl": "https://user:pw@llm.example:8443/v1",
        "temperature": "0.7",
        "maxTokens": 9,
        "topP": "0.5",
        "topK": 7,
        "frequencyPenalty": "-1",
        "presencePenalty": "2",
    }
    assert build_request_attributes(build_llm(parameters=parameters)) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o",
        "gen_ai.request.temperature": 0.7,
        "gen_ai.request.max_tokens": 9,
        "gen_ai.request.top_p": 0.5,
        "gen_ai.request.top_k": 7.0,
        "gen_ai.request.frequency_penalty": -1.0,
        "gen_ai.request.presence_penalty": 2.0,
        "server.address": "llm.example",
        "server.port": 8443,
        "kubechain.llm.name": "gpt-4o",
        "k8s.namespace.name": "default",
    }


@pytest.mark.parametrize(
    ("spec", "name", "server"),
    [
        ({"provider": "openai"}, "openai", ("api.openai.com", 443)),
        ({"provider": "anthropic"}, "anthropic", ("api.anthropic.com", 443)),
        ({"provider": "google"}, "gcp.gemini", ("generativelanguage.googleapis.com", 443)),
        ({"provider": "vertex"}, "gcp.vertex_ai", (None, None)),
        ({"provider": "mistral"}, "mistral_ai", ("api.mistral.ai", 443)),
        ({"parameters": {"model": "m", "baseUrl": "http://ollama/v1"}}, "openai", ("ollama", 80)),
        (
            {"parameters": {"model": "m", "baseUrl": "https://x.openai.azure.com"}, "openai": {"apiType": "AZURE"}},
            "azure.ai.openai",
            ("x.openai.azure.com", 443),
        ),
    ],
)
def test_the_provider_and_its_server(build_llm: BuildLLM, spec: Any, name: str, server: Any) -> None:
    attributes = build_request_attributes(build_llm(**spec))
    assert attributes["gen_ai.provider.name"] == name
    assert (attributes.get("server.address"), attributes.get("server.port")) == server


@pytest.mark.parametrize("url", ["http://[::1", "http://host:99999999", "http://host:port"])
def test_a_url_that_is_none_for_python_is_left_out(build_llm: BuildLLM, url: str) -> None:
    llm = build_llm()
    assert llm.spec.parameters is not None
    llm.spec.parameters.base_url = url
    assert "server.address" not in build_request_attributes(llm)


def test_an_answer_is_described_by_what_it_says_of_itself() -> None:
    completion = Completion(Message(role="assistant", content="hello"), USAGE, "stop")
    reply = {"id": "chatcmpl-1", "model": "gpt-4o-2026", "choices": []}
    assert build_response_attributes(identify(completion, reply)) == {
        "gen_ai.usage.input_tokens": 5,
        "gen_ai.usage.output_tokens": 2,
        "gen_ai.usage.cache_read.input_tokens": 4,
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.response.id": "chatcmpl-1",
        "gen_ai.response.model": "gpt-4o-2026",
    }
    assert len(identify(completion, {"id": "x" * 9999, "model": 7}).response_id) < 1000


def test_messages_have_the_form_of_the_conventions() -> None:
    call = MessageToolCall(id="c1", function=ToolCallFunction(name="look", arguments='{"at": 1}'))
    talk = [
        Message(role="user", content="hi"),
        Message(role="assistant", content="", tool_calls=[call]),
        Message(role="tool", content="x" * 99_999, tool_call_id="c1"),
    ]
    user, assistant, tool = json.loads(str(build_input_attributes(talk)["gen_ai.input.messages"]))
    assert user == {"role": "user", "parts": [{"type": "text", "content": "hi"}]}
    assert assistant["parts"] == [{"type": "tool_call", "id": "c1", "name": "look", "arguments": {"at": 1}}]
    assert (tool["parts"][0]["type"], tool["parts"][0]["id"]) == ("tool_call_response", "c1")
    assert len(tool["parts"][0]["response"]) < 20_000
    (said,) = json.loads(str(build_output_attributes(Completion(talk[0], USAGE, "stop"))["gen_ai.output.messages"]))
    assert said["finish_reason"] == "stop"


@pytest.mark.parametrize(
    "name", ["KUBECHAIN_CAPTURE_MESSAGE_CONTENT", "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"]
)
def test_the_conversation_is_captured_only_if_somebody_wants_it(name: str) -> None:
    assert not captures_messages({})
    for word in ("true", "True", "1", "SPAN_ONLY", "span_and_event"):
        assert captures_messages({name: word})
    for word in ("", "false", "0", "NO_CONTENT", "EVENT_ONLY"):
        assert not captures_messages({name: word})


@fuzz
@given(resources(LLM), models(Message))
def test_every_call_can_be_described(llm: LLM, message: Message) -> None:
    build_request_attributes(llm)
    build_input_attributes([message])
