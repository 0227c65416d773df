"""What the tools, the LLM and the people say that happened, read from their own logs."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.notes import read_notes
from tests.chaos.orders import CallKey


@dataclass(frozen=True)
class LLMRequest:
    """One request as the LLM got it at ``time``; it answered ``seconds`` later. ``told`` are the tool messages."""

    task: str
    turn: int
    digest: str
    time: float
    seconds: float
    told: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ask:
    """One request to a person, by its name outside."""

    id: str
    road: str
    time: float


@dataclass(frozen=True)
class Witness:
    """``started`` and ``ended`` hold when each execution of a call did, ``asks`` how often a person was asked."""

    started: dict[CallKey, list[float]]
    ended: dict[CallKey, list[float]]
    requests: dict[tuple[str, int], list[LLMRequest]]
    asks: dict[CallKey, list[Ask]] = field(default_factory=dict)


def read_witness(tool_log: Path, llm_log: Path, people_log: Path) -> Witness:
    executions: dict[str, dict[CallKey, list[float]]] = {"start": {}, "end": {}}
    for line in read_notes(tool_log):
        key = (line["task"], line["turn"], line["index"])
        executions[line["event"]].setdefault(key, []).append(line["time"])
    requests: dict[tuple[str, int], list[LLMRequest]] = {}
    for line in read_notes(llm_log):
        request = LLMRequest(
            line["task"], line["turn"], line["digest"], line["time"], line["seconds"], tuple(line["told"])
        )
        requests.setdefault((request.task, request.turn), []).append(request)
    asks: dict[CallKey, list[Ask]] = {}
    for line in read_notes(people_log):
        key = (line["task"], line["turn"], line["index"])
        asks.setdefault(key, []).append(Ask(line["id"], line["road"], line["time"]))
    return Witness(executions["start"], executions["end"], requests, asks)
