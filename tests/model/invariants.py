"""What must hold after every step, whatever went wrong, checked on every write that reaches the API server.

The expectations are made of what really happened (``outside``) and of the names that the API promises; nothing here
asks the code under test.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.model.api_server import Wire, Write
from tests.model.jetstream import Message
from tests.model.outside import BREAKS_OFF, GUARDED, READ, REFUSAL, REFUSED

from kubechain_common.api.names import tool_call_name
from kubechain_common.messages.topology import STARTED_CALLS_BUCKET, STARTED_CALLS_STREAM, parse_llm_result_subject

if TYPE_CHECKING:
    from tests.model.world import World

SEND, CALLS = "SendContextWindowToLLM", "ToolCallsPending"
ANSWERS = ("assistant", "summary")
"""The roles of what the model said, one message a turn."""
TERMINAL = frozenset({"FinalAnswer", "Failed"})
TERMINAL_CALL = frozenset({"Succeeded", "Failed", "ToolCallRejected"})
_EDGES = frozenset(
    {
        (None, "Pending"),
        (None, SEND),
        (None, "Failed"),
        ("Pending", "Pending"),
        ("Pending", SEND),
        ("Pending", "Failed"),
        (SEND, SEND),
        (SEND, CALLS),
        (SEND, "FinalAnswer"),
        (SEND, "Failed"),
        (CALLS, CALLS),
        (CALLS, SEND),
        (CALLS, "Failed"),
    }
)

_REJECTIONS = (REFUSAL, "The call was rejected by a human.", "Nobody answered within 60 seconds")


class Violation(AssertionError):
    """An invariant does not hold; the message says which, and what led to it."""


class Invariants:
    """Observes the API server and JetStream; ``check`` raises what was found."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._violations: list[str] = []
        self._births: dict[str, int] = {}
        self._answered: dict[tuple[str, int, tuple[str, ...]], int] = {}
        self._taken: set[tuple[str, int]] = set()
        self._asks_checked = 0
        self.leaders_overlapped = False
        self._people_told: dict[str, int] = {}
        world.outside.observe_run = self._observe_run
        world.server.observers.append(self._observe)
        world.nats.observers.append(self._observe_message)

    def check(self) -> None:
        self._check_asks()
        self._violations += self._world.errors
        if self._violations:
            trace = "\n  ".join(self._world.effects.trace)
            raise Violation("\n".join(self._violations) + "\nafter\n  " + trace)

    def allow_turns_again(self) -> None:
        """etcd went back: the model is asked again for what came after the snapshot."""
        self._answered.clear()
        self._taken.clear()

    def unfinished(self) -> list[str]:
        """The names of all Tasks and calls that have not ended."""
        tasks = [t["metadata"]["name"] for t in self._world.server.all("tasks") if _phase(t) not in TERMINAL]
        calls = self._world.server.all("taskruntoolcalls")
        return tasks + [c["metadata"]["name"] for c in calls if _phase(c) not in TERMINAL_CALL]

    def may_be_decided(self, call: Wire, approved: bool) -> bool:
        """Whether the API server would take the decision; nobody approves what is to be refused."""
        sensible = not approved or (call["spec"].get("target") or {}).get("tool") != REFUSED
        return _phase(call) not in TERMINAL_CALL and not call["spec"].get("decision") and sensible

    def check_settled(self) -> None:
        """No lost turn: once all is repaired and everybody had time, everything has ended and nothing lies around."""
        self.check()
        self._expect(not self.unfinished(), f"never ended: {self.unfinished()}")
        for name, stream in self._world.nats.streams.items():
            if name.endswith("_RESULTS"):
                left = [m.subject for m in stream.messages.values()]
                self._expect(not left, f"left in {name}: {left}")
        self.check()

    # --- writes ---

    def _observe(self, write: Write) -> None:
        if write.new is None or write.by == "user":
            return
        if write.plural == "tasks" and write.old is not None:
            if write.old.get("status") != write.new.get("status"):  # else it is only cancelled
                self._observe_task(write.old, write.new)
        elif write.plural == "taskruntoolcalls" and write.old is None:
            self._observe_birth(write.new)
        elif write.plural == "taskruntoolcalls":
            assert write.old is not None
            self._observe_call(write.old, write.new)
            if write.new["spec"].get("cancel") and not write.old["spec"].get("cancel"):
                self._observe_cancelled(write.new)

    def _observe_task(self, old: Wire, new: Wire) -> None:
        """One write, which may hold two steps: that a turn begins, and what became of it."""
        begun = _find_unwritten(old, new)
        if begun is not None:
            self._observe_step(old, begun)
        self._observe_step(begun or old, new)

    def _observe_step(self, old: Wire, new: Wire) -> None:
        name = new["metadata"]["name"]
        before, after = old.get("status") or {}, new.get("status") or {}
        edge = (before.get("phase"), after.get("phase"))
        self._expect(edge[0] not in TERMINAL or before == after, f"{name}: written after its end")
        self._expect(edge in _EDGES, f"{name}: {edge[0]} -> {edge[1]} is no step of a Task")
        steps = after.get("turn", 0) - before.get("turn", 0)
        answered = len(after.get("contextWindow") or []) > len(before.get("contextWindow") or [])
        begins = edge[1] == SEND and (edge[0] != SEND or answered)
        self._expect(steps == (1 if begins else 0), f"{name}: {steps} turns in one write, {edge[0]} -> {edge[1]}")
        self._observe_window(new, before.get("contextWindow") or [], after.get("contextWindow") or [], edge)
        self._observe_usage(name, after)

    def _observe_window(self, task: Wire, before: list[Wire], after: list[Wire], edge: tuple[Any, Any]) -> None:
        name, turn = task["metadata"]["name"], task["status"].get("turn", 0)
        self._expect(after[: len(before)] == before, f"{name}: the past of its window changed")
        added = after[len(before) :]
        roles = [m["role"] for m in added]
        if edge == (CALLS, SEND):
            self._observe_tool_messages(task, turn - 1, before[-1], added)
        elif edge == (CALLS, "Failed"):
            self._observe_tool_messages(task, turn, before[-1], added, ends=True)
        elif edge[1] == SEND and edge[0] != SEND:
            self._expect(roles == ["system", "user"], f"{name}: begins with {roles}")
        elif added:
            # A summary, or an answer that is sent back, is followed by the next turn at once.
            goes_on = edge == (SEND, SEND)
            allowed = (["summary"], ["assistant", "user"]) if goes_on else (["assistant"],)
            self._expect(edge[0] == SEND and roles in allowed, f"{name}: {roles} added on {edge}")
            answered = turn - 1 if goes_on else turn
            self._observe_answer(task, added[0], answered)
            self._observe_question_of(task, before, added[0])
            self._taken.add((task["metadata"]["uid"], answered))
        assistants = sum(m["role"] in ANSWERS for m in after)
        phase = task["status"].get("phase")
        whole = {SEND: turn - 1, CALLS: turn, "FinalAnswer": turn}.get(phase)
        self._expect(whole in (None, assistants), f"{name}: {assistants} answers in turn {turn}, phase {phase}")

    def _observe_answer(self, task: Wire, message: Wire, turn: int) -> None:
        name, script = task["metadata"]["name"], task["spec"]["userMessage"]
        said = self._world.outside.answers.get(message.get("content", ""))
        self._expect(said is not None, f"{name}: the model never said {message.get('content')!r}")
        if said is None:
            return
        self._expect((said.script, said.turn) == (script, turn), f"{name}: {message['content']!r} in turn {turn}")
        used = {"inputTokens": said.usage.input_tokens, "outputTokens": said.usage.output_tokens}
        whole = {**said.message.to_wire(), "usage": used}
        if message["role"] == "summary":
            whole = {**whole, "role": "summary", "keeps": message.get("keeps")}
        self._expect(whole == message, f"{name}: the answer was changed: {message}")

    def _observe_question_of(self, task: Wire, window: list[Wire], answer: Wire) -> None:
        """What the model read is what the window shows before its answer, where that shows it whole."""
        said = self._world.outside.answers.get(answer.get("content", ""))
        shown = all(m["role"] in ("system", "user", "assistant", "tool") and "contentFrom" not in m for m in window)
        if said is not None and answer["role"] == "assistant" and shown:
            read = tuple(m.get("content", "") for m in window)
            name = task["metadata"]["name"]
            self._expect(said.read == read, f"{name}: the model read something else: {said.read}, not {read}")

    def _observe_tool_messages(
        self, task: Wire, turn: int, answer: Wire, added: list[Wire], *, ends: bool = False
    ) -> None:
        """All results of the turn's calls, in their order; in a Task that ends, those that are there."""
        name, uid = task["metadata"]["name"], task["metadata"]["uid"]
        calls = [c["id"] for c in answer.get("toolCalls") or []]
        ids = [m.get("toolCallId") for m in added]
        wanted = [call_id for call_id in calls if call_id in ids] if ends else calls
        self._expect(ids == wanted, f"{name}: tool messages {ids} for turn {turn}")
        for index, message in zip((calls.index(i) + 1 for i in wanted), added, strict=False):
            key = f"default/{tool_call_name(name, uid, turn, index)}"
            content = message.get("content", "")
            runs = self._world.outside.runs.get(key, [])
            known = (*runs, *_REJECTIONS, *self._world.outside.answers)
            told = content in known or content.startswith("Error: ")
            self._expect(told, f"{name}: turn {turn} call {index}: {content!r} but the tool gave {runs}")
            child = self._world.server.find("taskruntoolcalls", key.partition("/")[2])
            if child is not None and _phase(child) in ("Succeeded", "ToolCallRejected"):
                self._expect(content == child["status"].get("result"), f"{name}: {content!r} is not the call's result")
            if child is not None:
                self._expect(
                    _phase(child) in TERMINAL_CALL, f"{name}: went on before call {index} of turn {turn} ended"
                )

    def _observe_usage(self, name: str, status: Wire) -> None:
        window = status.get("contextWindow") or []
        said = [self._world.outside.answers.get(m.get("content", "")) for m in window if m["role"] in ANSWERS]
        wanted = sum(answer.usage.total_tokens for answer in said if answer is not None)
        counted = (status.get("tokenUsage") or {}).get("totalTokens", 0)
        self._expect(counted == wanted, f"{name}: {counted} tokens counted, {wanted} used")

    # --- children ---

    def _observe_birth(self, call: Wire) -> None:
        name = call["metadata"]["name"]
        owner = call["metadata"]["ownerReferences"][0]
        task = self._world.server.find("tasks", owner["name"])
        self._births[name] = self._births.get(name, 0) + 1
        if task is None or task["metadata"]["uid"] != owner["uid"]:
            return  # deleted meanwhile; the garbage collector takes care of this one
        turn = task["status"].get("turn", 0)
        calls = (task["status"].get("contextWindow") or [{}])[-1].get("toolCalls") or []
        names = [tool_call_name(task["metadata"]["name"], owner["uid"], turn, i) for i in range(1, len(calls) + 1)]
        if self.leaders_overlapped and name not in names:
            return  # a call of the past that somebody deleted, made again by a leader of the past
        if _phase(task) in TERMINAL:
            return  # by somebody who has not heard of the end yet: it is owned, and goes with its Task
        self._expect(name in names, f"{name}: created, but turn {turn} has {names}")
        if name in names:
            wish = calls[names.index(name)]
            given = (call["spec"]["toolCallId"], call["spec"]["arguments"])
            self._expect(given == (wish["id"], wish["function"]["arguments"]), f"{name}: made for {wish}, got {given}")

    def _observe_call(self, old: Wire, new: Wire) -> None:
        name, status = new["metadata"]["name"], new["status"]
        decided = old["spec"].get("decision")
        self._expect(decided in (None, new["spec"].get("decision")), f"{name}: decided twice")
        self._expect(
            _phase(old) not in TERMINAL_CALL or old["status"] == status, f"{name}: a call was written after its end"
        )
        runs = self._world.outside.runs.get(f"default/{name}", [])
        if status["phase"] == "Succeeded" and _phase(old) not in TERMINAL_CALL:
            if new["spec"].get("toolType") == "DelegateToAgent":
                runs = self._said_by_sub_agent(new)
            self._expect(status.get("result") in runs, f"{name}: {status.get('result')!r}, but the tool gave {runs}")

    def _said_by_sub_agent(self, call: Wire) -> list[str]:
        script = json.loads(call["spec"]["arguments"])["message"]
        return [said for said, answer in self._world.outside.answers.items() if answer.script == script]

    def _observe_cancelled(self, call: Wire) -> None:
        """A call that is cancelled makes room for others: none of its Task's calls may begin by it."""
        owner = call["metadata"]["ownerReferences"][0]
        task = self._world.server.find("tasks", owner["name"])
        if (
            task is None
            or task["metadata"]["uid"] != owner["uid"]
            or _phase(task) in TERMINAL
            or self._world.nats.epoch
        ):
            return
        for other in self._world.server.all("taskruntoolcalls"):
            if other["metadata"]["ownerReferences"][0]["uid"] == owner["uid"] and _phase(other) not in TERMINAL_CALL:
                name = other["metadata"]["name"]
                kept = self._world.nats.info(STARTED_CALLS_STREAM, f"$KV.{STARTED_CALLS_BUCKET}.default/{name}")
                self._expect(
                    bool(kept.state.subjects), f"{name}: may still begin, though its Task's calls are cancelled"
                )

    # --- asks and runs ---

    def _observe_message(self, message: Message) -> None:
        owner = parse_llm_result_subject(message.subject)
        if message.subject.startswith("kubechain.llm.result.") and owner is not None:
            said = (json.loads(message.data).get("message") or {}).get("content", "")
            answer = self._world.outside.answers.get(said)
            self._answered[owner[1], owner[2], answer.read if answer else ()] = self._world.nats.epoch
        self._observe_question(message)

    def _observe_question(self, message: Message) -> None:
        """Once it is reported that somebody was asked about a call, nobody is to be asked again."""
        call_uid = message.subject.rpartition(".")[2]
        if message.subject.startswith("kubechain.human.result."):
            self._people_told.setdefault(call_uid, self._world.nats.epoch)
        elif message.subject.startswith("kubechain.human.request.") and not self.leaders_overlapped:
            again = self._people_told.get(call_uid) == self._world.nats.epoch
            self._expect(not again, f"{call_uid}: a person is asked again")

    def _observe_run(self, tool: str, key: str) -> None:
        """A guarded tool runs only while its call is approved, and one that people refuse never does."""
        self._expect(tool not in self._world.outside.refused, f"{key}: ran, though it was rejected")
        name = key.partition("/")[2]
        call = self._world.server.find("taskruntoolcalls", name)
        if tool == GUARDED and call is not None and self._births.get(name) == 1:
            self._expect(bool((call["spec"].get("decision") or {}).get("approved")), f"{key}: ran without approval")

    def _check_asks(self) -> None:
        outside = self._world.outside
        for key, runs in outside.runs.items():
            tool = outside.tool_of[key]
            self._expect(tool == READ or len(runs) == 1, f"{key}: {tool} ran {len(runs)} times, and must run once")
        for script, turn, read in outside.windows[self._asks_checked :]:
            uids = [
                t["metadata"]["uid"] for t in self._world.server.all("tasks") if t["spec"].get("userMessage") == script
            ]
            for uid in uids:
                results = [self._answered.get((uid, turn, of)) for of in (read, ())]  # an error says not what was read
                stored = self._world.nats.epoch in results
                self._expect(
                    not stored and (uid, turn) not in self._taken,
                    f"{script}: the model was asked again for turn {turn}, whose result was there",
                )
        self._asks_checked = len(outside.windows)

    def _expect(self, holds: bool, sentence: str) -> None:
        if not holds and sentence not in self._violations:
            self._violations.append(sentence)


def _find_unwritten(old: Wire, new: Wire) -> Wire | None:
    """The Task as it stood while the model was asked, if that was not written by itself."""
    before, after = old.get("status") or {}, new.get("status") or {}
    turn = before.get("turn", 0) + 1
    if before.get("phase") not in (None, CALLS) or (after.get("turn", 0), after.get("phase")) in (
        (turn - 1, after.get("phase")),
        (turn, SEND),
    ):
        return None
    first = len(before.get("contextWindow") or [])
    window = after.get("contextWindow") or []
    said = next((i for i in range(first, len(window)) if window[i]["role"] in ANSWERS), len(window))
    status = {**before, "phase": SEND, "turn": turn, "contextWindow": window[:said]}
    return {**new, "status": status}


def _phase(obj: Wire) -> Any:
    return (obj.get("status") or {}).get("phase")


__all__ = ["BREAKS_OFF", "Invariants", "Violation"]
