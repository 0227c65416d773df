"""What a Task is ordered to do: turns of tool calls, drawn from a seed and written into its user message.

The scripted LLM obeys it, the tools report who called, and the verdict knows from it what must have happened.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import Any

SERVER = "tools"
ASKED, HOOKED = "asked", "hooked"
"""The servers whose calls wait for a person, who is reached by the HumanLayer API, and by a webhook."""
TOOLS = ("act", "look", "put")
"""Without a hint, with readOnlyHint, with idempotentHint."""
REPEATABLE = frozenset({"look", "put"})
_WEIGHTS = (6, 1, 1)
MIN_TURNS, MAX_TURNS = 2, 4
LLM_MS = (20, 300)
TOOL_MS = (10, 200)

GUARDED = 0.12
"""The part of the calls that wait for a person."""
VERDICTS = ("approve", "approve", "approve", "reject")

CallKey = tuple[str, int, int]
"""(task, turn from 1, index from 0)."""


@dataclass(frozen=True)
class Call:
    """One tool call of an order. ``verdict`` is what the person says whom a guarded server makes it wait for."""

    tool: str
    ms: int
    server: str = SERVER
    verdict: str = ""


@dataclass(frozen=True)
class Order:
    """``turns[i]`` are the calls of turn i+1; ``llm_ms[i]`` is how long the LLM takes for it. One more turn answers."""

    task: str
    turns: tuple[tuple[Call, ...], ...]
    llm_ms: tuple[int, ...]

    @property
    def answer(self) -> str:
        return f"done after {len(self.turns)} turns"

    def calls(self) -> dict[CallKey, Call]:
        """Every call, in the order of the conversation."""
        return {
            (self.task, turn, index): call
            for turn, calls in enumerate(self.turns, start=1)
            for index, call in enumerate(calls)
        }

    def to_message(self) -> str:
        turns = [[[call.tool, call.ms, call.server, call.verdict] for call in calls] for calls in self.turns]
        return json.dumps({"task": self.task, "turns": turns, "llm_ms": list(self.llm_ms)})

    @classmethod
    def from_message(cls, text: str) -> Order:
        raw: dict[str, Any] = json.loads(text)
        turns = tuple(tuple(Call(*call) for call in calls) for calls in raw["turns"])
        return cls(raw["task"], turns, tuple(raw["llm_ms"]))


def draw_order(task: str, rng: random.Random) -> Order:
    turns = tuple(
        tuple(draw_call(rng) for _ in range(rng.choice((1, 1, 2)))) for _ in range(rng.randint(MIN_TURNS, MAX_TURNS))
    )
    return Order(task, turns, tuple(rng.randint(*LLM_MS) for _ in range(len(turns) + 1)))


def draw_call(rng: random.Random) -> Call:
    if rng.random() < GUARDED:
        return Call(TOOLS[0], rng.randint(*TOOL_MS), rng.choice((ASKED, HOOKED)), rng.choice(VERDICTS))
    return Call(rng.choices(TOOLS, _WEIGHTS)[0], rng.randint(*TOOL_MS))


def comment_of(key: CallKey) -> str:
    """What the person says who rejects the call."""
    task, turn, index = key
    return f"no to {task} {turn} {index}"


def result_of(key: CallKey) -> str:
    """What the tool answers."""
    task, turn, index = key
    return f"did {task} {turn} {index}"
