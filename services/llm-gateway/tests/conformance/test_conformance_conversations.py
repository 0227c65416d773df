"""What every provider must carry, whole and in order, whatever its protocol. Hosts: ``wire_hosts``."""

from __future__ import annotations

import json
from typing import Any

import pytest
from wire_hosts import SCHEMA, Bench

from kubechain_cli.scripted_llm import Reply, ToolCall
from kubechain_cli.scripted_llm.server import ANTHROPIC
from kubechain_common.api.v1alpha1.conversation import Message, MessageToolCall, ToolCallFunction
from kubechain_common.messages import ResponseFormat, ToolDefinition
from kubechain_llm_gateway.providers.errors import UnusableReplyError

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("streamed")]

HI = [Message(role="system", content="Be kind."), Message(role="user", content="hi")]
TOOLS = [
    ToolDefinition(
        name="weather__look_up",
        description="Looks it up",
        parameters={"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    ),
    ToolDefinition(name="clock"),
]
UNICODE = "żółć 😀 \u2028 zero\u0000 שלום ￿"


def heard(bench: Bench) -> list[tuple[str, str, list[tuple[str, Any]]]]:
    """The last request as the provider understands it: role, text, and calls with their arguments."""
    messages, _ = bench.host.wire.parse_request(bench.bodies[-1])
    return [(m.role, m.text, [(c.name, json.loads(c.arguments)) for c in m.tool_calls]) for m in messages]


def call(name: str, arguments: dict[str, Any], call_id: str) -> MessageToolCall:
    return MessageToolCall(id=call_id, function=ToolCallFunction(name=name, arguments=json.dumps(arguments)))


async def test_a_plain_turn(bench: Bench) -> None:
    bench.answer(Reply("hello"))
    completion = await bench.complete(HI)
    assert completion.message == Message(role="assistant", content="hello")
    assert "".join(bench.heard) == ("hello" if bench.streamed else "")
    assert completion.usage.to_wire() == {"inputTokens": 11, "outputTokens": 7, "totalTokens": 18}
    assert completion.incomplete == ""
    assert heard(bench) == [("system", "Be kind.", []), ("user", "hi", [])]


async def test_many_turns(bench: Bench) -> None:
    talk = [HI[0]]
    for number in range(4):
        talk.append(Message(role="user", content=f"question {number}"))
        bench.answer(Reply(f"answer {number}"))
        talk.append((await bench.complete(talk)).message)
    assert [text for _, text, _ in heard(bench)] == [m.content for m in talk[:-1]]
    assert talk[-1].content == "answer 3"


async def test_parallel_calls_and_their_results(bench: Bench) -> None:
    calls = tuple(ToolCall(f"toolcall{n}", "weather__look_up", json.dumps({"city": f"c{n}"})) for n in range(3))
    bench.answer(Reply("Let me look.", calls), Reply("done"))
    first = await bench.complete(HI, TOOLS)
    made = first.message.tool_calls or []
    assert [(c.function.name, json.loads(c.function.arguments)) for c in made] == [
        ("weather__look_up", {"city": f"c{n}"}) for n in range(3)
    ]
    results = [Message(role="tool", tool_call_id=c.id, content=f"result {n}") for n, c in enumerate(made)]
    await bench.complete([*HI, first.message, *results], TOOLS)
    said = [("weather__look_up", {"city": f"c{n}"}) for n in range(3)]
    assert heard(bench)[2:] == [("assistant", "Let me look.", said)] + [("tool", f"result {n}", []) for n in range(3)]
    messages, tools = bench.host.wire.parse_request(bench.bodies[-1])
    assert [m.tool_call_id for m in messages[-3:]] == [c.id for c in messages[2].tool_calls]
    assert [tool.name for tool in tools] == ["weather__look_up", "clock"]


async def test_calls_without_arguments_or_text(bench: Bench) -> None:
    bench.answer(Reply("", (ToolCall("toolcall0", "clock", "{}"),)), Reply("noon"))
    first = await bench.complete(HI, TOOLS)
    made = first.message.tool_calls or []
    assert (first.message.content, [c.function.name for c in made]) == ("", ["clock"])
    result = Message(role="tool", tool_call_id=made[0].id, content="")
    assert (await bench.complete([*HI, first.message, result], TOOLS)).message.content == "noon"
    assert heard(bench)[2] == ("assistant", "", [("clock", {})])


async def test_an_error_of_a_tool_is_told_to_the_model(bench: Bench) -> None:
    talk = [
        *HI,
        Message(role="assistant", tool_calls=[call("clock", {}, "call_1")]),
        Message(role="tool", tool_call_id="call_1", content="Error: the clock has stopped"),
    ]
    bench.answer(Reply("I see."))
    await bench.complete(talk, TOOLS)
    assert heard(bench)[-1][:2] == ("tool", "Error: the clock has stopped")


@pytest.mark.parametrize("call_id", ["toolu_01AbCdEf", "call_" + "x" * 80, "id with ünicode", "abc123DEF"])
async def test_a_conversation_may_have_begun_with_another_provider(bench: Bench, call_id: str) -> None:
    """Its ids, its opaque data, arguments that are no JSON, and a tool that nobody has."""
    foreign = {"provider": "openai" if bench.host.wire is ANTHROPIC else "anthropic", "host": "x"}
    broken = MessageToolCall(id="other", function=ToolCallFunction(name="functions.no such", arguments="{not json"))
    talk = [
        *HI,
        Message(role="assistant", tool_calls=[call("clock", {}, call_id), broken], provider_data=foreign),
        Message(role="tool", tool_call_id=call_id, content="noon"),
        Message(role="tool", tool_call_id="other", content="Error: no such tool"),
    ]
    bench.answer(Reply("fine"))
    assert (await bench.complete(talk, TOOLS)).message.content == "fine"


async def test_tools_that_are_gone_since(bench: Bench) -> None:
    talk = [
        *HI,
        Message(role="assistant", tool_calls=[call("clock", {}, "call_1")]),
        Message(role="tool", tool_call_id="call_1", content="noon"),
    ]
    bench.answer(Reply("fine"))
    assert (await bench.complete(talk)).message.content == "fine"


async def test_text_of_every_kind(bench: Bench) -> None:
    said = Message(role="assistant", content=UNICODE, tool_calls=[call("clock", {UNICODE: UNICODE}, "call_1")])
    talk = [Message(role="user", content=UNICODE), said, Message(role="tool", tool_call_id="call_1", content=UNICODE)]
    bench.answer(Reply(UNICODE, (ToolCall("toolcall0", "clock", json.dumps({"a": UNICODE})),)))
    completion = await bench.complete(talk, TOOLS)
    assert heard(bench) == [
        ("user", UNICODE, []),
        ("assistant", UNICODE, [("clock", {UNICODE: UNICODE})]),
        ("tool", UNICODE, []),
    ]
    assert completion.message.content == UNICODE
    assert json.loads((completion.message.tool_calls or [])[0].function.arguments) == {"a": UNICODE}


async def test_a_context_of_200_kb(bench: Bench) -> None:
    page = "0123456789abcdé\n" * 12_500
    bench.answer(Reply(page))
    completion = await bench.complete([HI[0], Message(role="user", content=page)])
    assert heard(bench)[-1][1] == page
    assert completion.message.content == page


async def test_a_cut_answer_says_so(bench: Bench) -> None:
    bench.answer(Reply("half an ans", cut=True))
    completion = await bench.complete(HI)
    assert completion.message.content == "half an ans"
    assert completion.incomplete == "the model reached its token limit: raise parameters.maxTokens"


async def test_a_cut_tool_call_is_not_made(bench: Bench) -> None:
    bench.answer(Reply("", (ToolCall("toolcall0", "clock", "{}"),), cut=True))
    with pytest.raises(UnusableReplyError, match="in the middle of a tool call"):
        await bench.complete(HI, TOOLS)


@pytest.mark.parametrize("tools", [[], TOOLS], ids=["without tools", "with tools"])
async def test_an_answer_of_a_given_form(bench: Bench, tools: list[ToolDefinition]) -> None:
    bench.answer(Reply('{"city": "Rome", "people": 3}'))
    completion = await bench.complete(HI, tools, ResponseFormat(name="a city", json_schema=SCHEMA))
    assert json.loads(completion.message.content) == {"city": "Rome", "people": 3}
    assert '"people"' in json.dumps(bench.bodies[-1]).replace("\\", "")
