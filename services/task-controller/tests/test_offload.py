"""Whatever a window keeps or gives away: the model reads every byte, and the window stays small."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubechain_common.api.turn_calls import child_names
from kubechain_common.api.v1alpha1 import Task, TaskRunToolCall
from kubechain_common.api.v1alpha1.conversation import Message, MessageToolCall, ToolCallFunction
from kubechain_common.kube.errors import NotFoundError
from kubechain_common.kube.text_cache import TextCache
from kubechain_common.kube.window_reader import ContentLostError, WindowReader
from kubechain_common.messages import ObjectRef
from kubechain_common.testing.builders import build_call, build_task
from kubechain_task_controller.core import offload
from kubechain_task_controller.core.context_window import build_tool_message
from kubechain_task_controller.core.offload import Offloaded, offload_answer, offload_results, offload_start

TASK = build_task()


@dataclass
class Cluster:
    """The objects that references may name, as the API server would give them."""

    objects: dict[str, dict[str, Any]] = field(default_factory=dict)
    reads: int = 0

    async def request(self, method: str, path: str) -> dict[str, Any]:
        self.reads += 1
        name = path.rpartition("/")[2]
        if name not in self.objects:
            raise NotFoundError(name)
        return self.objects[name]

    def add(self, offloaded: Offloaded, task: Task = TASK) -> None:
        for text in offloaded.stored:
            metadata = {"name": text.name, "ownerReferences": [task.build_owner_reference().to_wire()]}
            self.objects[text.name] = {"metadata": metadata, "data": {text.key: text.text}}

    async def read(self, window: Sequence[Message], task: Task = TASK) -> list[Message]:
        return await WindowReader(self, TextCache(0)).read(ObjectRef.of(task), window)


@dataclass
class Run:
    """A Task turn by turn: the whole conversation beside the window that is written for it."""

    cluster: Cluster = field(default_factory=Cluster)
    whole: list[Message] = field(default_factory=list)
    window: list[Message] = field(default_factory=list)
    texts: Mapping[str, str] = field(default_factory=dict)
    turn: int = 0

    def take(self, offloaded: Offloaded) -> None:
        self.cluster.add(offloaded)
        self.window, self.texts = offloaded.window, offloaded.texts

    def start(self, messages: list[Message]) -> None:
        self.whole = messages
        self.take(offload_start(TASK, messages))

    def play(self, answer: str, calls: Sequence[tuple[str, str]]) -> None:
        """One turn; a call is (arguments, result)."""
        self.turn += 1
        asked = [
            MessageToolCall(id=f"call_{i}", function=ToolCallFunction(name="fetch__fetch", arguments=arguments))
            for i, (arguments, _) in enumerate(calls)
        ]
        said = Message(role="assistant", content=answer, tool_calls=asked)
        self.whole.append(said)
        self.take(offload_answer(TASK, self.window, said))
        assert self.window[-1].tool_calls == asked
        children: dict[str, TaskRunToolCall] = {}
        for name, call, (arguments, result) in zip(child_names(TASK, self.turn, len(calls)), asked, calls, strict=True):
            status = {"phase": "Succeeded", "result": result}
            child = build_call(name, status=status, toolCallId=call.id, arguments=arguments)
            self.cluster.objects[name] = child.to_wire()
            children[call.id] = child
        results = [build_tool_message(call, children[call.id], None) for call in asked]
        self.whole += results
        self.take(offload_results(TASK, [*self.window, *results], children, count=len(self.whole)))


SIZES = st.sampled_from([0, 1, 90, 1024, 1025, 4096, 4097, 9000, 30_000])
LETTERS = st.sampled_from(["x", "é", "\n", '"', "\U0001f600"])
TEXTS = st.builds(lambda letter, size: letter * size, LETTERS, SIZES)
TURNS = st.lists(st.tuples(TEXTS, st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=4)), max_size=24)
ROLES = st.sampled_from(["user", "assistant"])
CONVERSATIONS = st.lists(st.builds(lambda role, text: Message(role=role, content=text), ROLES, TEXTS), max_size=60)


def wire_size(window: Sequence[Message]) -> int:
    return sum(len(message.model_dump_json(by_alias=True, exclude_none=True).encode()) for message in window)


@given(start=CONVERSATIONS, turns=TURNS)
async def test_the_model_reads_every_byte_and_the_window_stays_small(
    start: list[Message], turns: list[tuple[str, list[tuple[str, str]]]]
) -> None:
    run = Run()
    run.start([Message(role="system", content="You help."), Message(role="user", content="go"), *start])
    assert await run.cluster.read(run.window) == run.whole
    for answer, calls in turns:
        run.play(answer, calls)
        assert len(run.window) <= offload.WINDOW_MESSAGES
        assert wire_size(run.window) <= offload.WINDOW_BYTES
        assert all(m.content_from is not None or len(m.content.encode()) <= 4096 for m in run.window)
    assert await run.cluster.read(run.window) == run.whole


async def test_a_page_fits_into_a_config_map_whatever_the_language() -> None:
    run = Run()
    messages = [Message(role="user", content="漢" * 3_000) for _ in range(200)]
    offloaded = offload_start(TASK, messages)
    assert all(len(text.text.encode()) <= 1024 * 1024 for text in offloaded.stored)
    run.start(messages)
    assert await run.cluster.read(run.window) == messages


async def test_a_long_result_stays_in_its_call_and_is_at_hand_for_the_request() -> None:
    run = Run()
    run.start([Message(role="user", content="go")])
    run.play("", [("{}", "y" * 20_480)])
    (name,) = child_names(TASK, 1, 1)
    message = run.window[-1]
    assert message.content == "y" * 96 + "... [20,480 bytes]"
    assert message.content_from is not None
    assert message.content_from.task_run_tool_call_ref is not None
    assert message.content_from.task_run_tool_call_ref.name == name
    assert run.texts == {f"taskruntoolcall/{name}/result": "y" * 20_480}


async def test_a_turn_costs_the_same_however_long_the_conversation_is() -> None:
    run = Run()
    run.start([Message(role="system", content="You help."), Message(role="user", content="go")])
    largest = 0
    for _ in range(300):
        run.play("", [('{"size": 20480}', "z" * 20_480)])
        largest = max(largest, wire_size(run.window))
    assert largest < 16 * 1024
    assert [m.role for m in run.window[:3]] == ["system", "user", "earlier"]
    assert run.window[2].content == f"{len(run.whole) - len(run.window) + 1} earlier messages"
    assert await run.cluster.read(run.window) == run.whole


def test_the_same_decision_stores_the_same_texts() -> None:
    window = [Message(role="user", content="a" * 5000)] * 50
    assert offload_start(TASK, window) == offload_start(TASK, window)


def test_another_text_has_another_name() -> None:
    first, second = (offload_start(TASK, [Message(role="user", content=c * 5000)]).stored for c in "ab")
    assert first[0].name != second[0].name
    assert first[0].name.startswith("hello-text-")


def test_a_final_answer_stays_in_the_window_unless_it_is_huge() -> None:
    report, book = ("r" * 100_000, "b" * 300_000)
    kept = offload_answer(TASK, [], Message(role="assistant", content=report))
    assert (kept.window[0].content, kept.stored) == (report, ())
    stored = offload_answer(TASK, [], Message(role="assistant", content=book))
    assert stored.window[0].content_from is not None
    assert stored.stored[0].text == book


def test_a_result_that_the_call_does_not_hold_word_for_word_is_stored() -> None:
    message = Message(role="tool", content="e" * 5000, tool_call_id="call_1")
    other = {"call_1": build_call(status={"phase": "Succeeded", "result": "something else"})}
    offloaded = offload_results(TASK, [message], other, count=1)
    assert [text.text for text in offloaded.stored] == ["e" * 5000]


@pytest.mark.parametrize("broken", ["gone", "foreign", "unfinished"])
async def test_a_text_that_can_not_be_had_is_an_error_that_names_its_object(broken: str) -> None:
    run = Run()
    run.start([Message(role="user", content="go")])
    run.play("", [("{}", "y" * 5000)])
    (name,) = child_names(TASK, 1, 1)
    if broken == "gone":
        del run.cluster.objects[name]
    elif broken == "foreign":
        run.cluster.objects[name] = build_call(name, task=build_task("other"), status={"phase": "Succeeded"}).to_wire()
    else:
        run.cluster.objects[name] = build_call(name).to_wire()
    with pytest.raises(ContentLostError, match=f'TaskRunToolCall "{name}"'):
        await run.cluster.read(run.window)
