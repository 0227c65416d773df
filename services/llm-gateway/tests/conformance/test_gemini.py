"""What only Gemini wants: the signatures of its thoughts, and JSON in words where it gives none beside tools."""

from __future__ import annotations

import json
from typing import Any

import pytest
from aiohttp import web
from wire_hosts import HOST_OF, SCHEMA, OpenBench

from kubechain_cli.scripted_llm import Reply
from kubechain_common.api.v1alpha1.conversation import Message, MessageToolCall, ToolCallFunction
from kubechain_common.messages import ResponseFormat, ToolDefinition
from kubechain_llm_gateway.providers.wire_target import Target

pytestmark = pytest.mark.integration

HI = [Message(role="user", content="hi")]
CLOCK = ToolDefinition(name="clock")
SIGNATURE = {"google": {"thought_signature": "CpcBA-signature=="}}
NOBODYS = {"google": {"thought_signature": "skip_thought_signature_validator"}}


def signed_reply(*extras: dict[str, Any] | None) -> web.Response:
    calls = [
        {"id": f"call{n}", "type": "function", "function": {"name": "clock", "arguments": "{}"}}
        | ({"extra_content": extra} if extra else {})
        for n, extra in enumerate(extras)
    ]
    message = {"role": "assistant", "content": None, "tool_calls": calls}
    usage = {"prompt_tokens": 21, "completion_tokens": 4, "total_tokens": 85}
    return web.json_response({"choices": [{"message": message, "finish_reason": "tool_calls"}], "usage": usage})


def results(message: Message) -> list[Message]:
    return [Message(role="tool", tool_call_id=call.id, content="noon") for call in message.tool_calls or []]


@pytest.mark.parametrize("target", [Target.GOOGLE, Target.VERTEX_GEMINI])
async def test_signatures_survive_the_task(open_bench: OpenBench, target: Target) -> None:
    """Through the Task's status too, whose form is JSON."""
    bench = await open_bench(HOST_OF[target], model="gemini-3-pro")
    bench.answer(signed_reply(SIGNATURE, None), Reply("noon"))
    first = Message.model_validate((await bench.complete(HI, [CLOCK])).message.to_wire())
    await bench.complete([*HI, first, *results(first)], [CLOCK])
    calls = bench.bodies[-1]["messages"][1]["tool_calls"]
    assert [call.get("extra_content") for call in calls] == [SIGNATURE, None]


async def test_signatures_survive_a_stream(open_bench: OpenBench) -> None:
    bench = await open_bench(HOST_OF[Target.GOOGLE], model="gemini-3-pro")
    function = {"name": "clock", "arguments": "{}"}
    delta = {
        "role": "assistant",
        "tool_calls": [
            {"index": 0, "id": "a", "type": "function", "function": function, "extra_content": SIGNATURE},
            {"index": 1, "id": "b", "type": "function", "function": function},
        ],
    }
    chunks = [{"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]} for reason in (None, "tool_calls")]
    chunks[1]["choices"][0]["delta"] = {}
    events = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
    bench.answer(web.Response(text=events, content_type="text/event-stream"), Reply("noon"))
    first = (await bench.complete(HI, [CLOCK])).message
    await bench.complete([*HI, first, *results(first)], [CLOCK])
    calls = bench.bodies[-1]["messages"][1]["tool_calls"]
    assert [call.get("extra_content") for call in calls] == [SIGNATURE, None]


@pytest.mark.parametrize(("model", "marked"), [("gemini-3-pro", True), ("gemini-2.5-flash", False)])
async def test_the_calls_of_another_model_are_marked(open_bench: OpenBench, model: str, marked: bool) -> None:
    bench = await open_bench(HOST_OF[Target.GOOGLE], model=model)
    call = ToolCallFunction(name="clock", arguments="{}")
    said = Message(role="assistant", tool_calls=[MessageToolCall(id=f"call_{n}", function=call) for n in range(2)])
    bench.answer(Reply("noon"))
    await bench.complete([*HI, said, *results(said)], [CLOCK])
    calls = bench.bodies[-1]["messages"][1]["tool_calls"]
    assert [c.get("extra_content") for c in calls] == [NOBODYS if marked else None, None]


async def test_thoughts_count_as_output(open_bench: OpenBench) -> None:
    bench = await open_bench(HOST_OF[Target.GOOGLE])
    bench.answer(signed_reply(None))
    usage = (await bench.complete(HI, [CLOCK])).usage
    assert usage.to_wire() == {"inputTokens": 21, "outputTokens": 64, "totalTokens": 85, "reasoningTokens": 60}


@pytest.mark.parametrize(
    ("model", "tools", "by_schema"),
    [("gemini-2.5-flash", [], True), ("gemini-2.5-flash", [CLOCK], False), ("gemini-3-pro", [CLOCK], True)],
)
async def test_json_is_asked_for_in_words_where_tools_forbid_a_schema(
    open_bench: OpenBench, model: str, tools: list[ToolDefinition], by_schema: bool
) -> None:
    bench = await open_bench(HOST_OF[Target.GOOGLE], model=model)
    bench.answer(Reply("{}"))
    await bench.complete(HI, tools, ResponseFormat(name="city", json_schema=SCHEMA))
    assert ("response_format" in bench.bodies[-1]) == by_schema
    assert (bench.bodies[-1]["messages"][0]["role"] == "system") != by_schema
