"""What was in flight when something was killed (pure): a kill in an idle moment proves nothing."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tests.chaos.journal import KILLED, Disruption
from tests.chaos.witness import Witness


@dataclass(frozen=True)
class Exposure:
    """How many kills hit at least one request to the LLM, and at least one running tool; and how many at all."""

    during_requests: int = 0
    during_calls: int = 0
    during_either: int = 0


def find_exposure(disruptions: Iterable[Disruption], witness: Witness) -> Exposure:
    """By what the LLM and the tools noted themselves."""
    requests = _Spans([(r.time, r.time + r.seconds) for asked in witness.requests.values() for r in asked])
    calls = _Spans(
        [
            span
            for key, starts in witness.started.items()
            for span in zip(starts, witness.ended.get(key, []), strict=False)
        ]
    )
    kills = [disruption.at for disruption in disruptions if disruption.kind == KILLED]
    asked, ran = [at in requests for at in kills], [at in calls for at in kills]
    return Exposure(sum(asked), sum(ran), sum(a or r for a, r in zip(asked, ran, strict=True)))


class _Spans:
    """Which moments lie in any of these spans of time."""

    def __init__(self, spans: Sequence[tuple[float, float]]) -> None:
        self._begins = sorted(begin for begin, _ in spans)
        self._ends = sorted(end for _, end in spans)

    def __contains__(self, at: float) -> bool:
        """More have begun than have ended."""
        return bisect_right(self._begins, at) > bisect_right(self._ends, at)
