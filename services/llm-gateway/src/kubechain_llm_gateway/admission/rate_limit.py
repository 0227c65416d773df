"""How many requests and tokens a minute: the pure half of a limit that all replicas share.

The generic cell rate algorithm (https://en.wikipedia.org/wiki/Generic_cell_rate_algorithm): for requests and for tokens
there is a time at which the next one is due if everything so far had come at exactly the rate. A call may start up to
``BURST`` seconds before that, and moves it on by what it costs. So a minute has at most a twentieth more than the
limit, and a call more; an idle LLM answers a few at once; and a call that costs more than a whole minute's tokens is
made, and those after it wait.

Starts are reserved ahead, several with one step, so that replicas need not meet for every call. What a call costs is
known afterwards only: a guess is reserved, and corrected by what the provider counted.

Times are seconds since the epoch, of the replicas' clocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import orjson

from kubechain_common.api.v1alpha1.llm import LLMRateLimit

BURST = 3.0
HORIZON = 2.0
"""Seconds that a replica reserves ahead, so that none can take all for itself."""
_MINUTE = 60.0


@dataclass(frozen=True)
class RateState:
    """When the next request, and the next token, is due; and by which limits that was calculated."""

    requests_due: float = 0.0
    tokens_due: float = 0.0
    requests_per_minute: int = 0
    tokens_per_minute: int = 0


FRESH = RateState()


def reserve(
    state: RateState, limit: LLMRateLimit, costs: Sequence[int], now: float, *, at_least_one: bool = True
) -> tuple[RateState, tuple[float, ...]]:
    """When the first of the calls may start, in their order; ``costs`` are their tokens.

    Only within the horizon; ``at_least_one``: the first however far away that is, for a replica that has none.
    """
    state = _adapt(state, limit, now)
    starts: list[float] = []
    for cost in costs:
        start = next_start(state, now)
        if start > now + HORIZON and (starts or not at_least_one):
            break
        starts.append(start)
        state = replace(
            state,
            requests_due=max(state.requests_due, start) + _seconds(1, limit.requests_per_minute),
            tokens_due=max(state.tokens_due, start) + _seconds(cost, limit.tokens_per_minute),
        )
    return state, tuple(starts)


def next_start(state: RateState, now: float) -> float:
    """When the next call may start."""
    return max(now, state.requests_due - BURST, state.tokens_due - BURST)


def correct(state: RateState, limit: LLMRateLimit, tokens: int, now: float) -> RateState:
    """The state after calls that cost so many tokens more than was reserved, or less where ``tokens`` is negative."""
    state = _adapt(state, limit, now)
    since = max(state.tokens_due, now) if tokens > 0 else state.tokens_due
    return replace(state, tokens_due=since + _seconds(tokens, limit.tokens_per_minute))


def describe(limit: LLMRateLimit) -> str:
    """The limit in the words of the spec."""
    parts = [
        f"{number} {what}"
        for number, what in ((limit.requests_per_minute, "requests"), (limit.tokens_per_minute, "tokens"))
        if number is not None
    ]
    return f"limited to {' and '.join(parts)} a minute (spec.rateLimit)"


def _seconds(cost: int, per_minute: int | None) -> float:
    return cost * _MINUTE / per_minute if per_minute else 0.0


def _adapt(state: RateState, limit: LLMRateLimit, now: float) -> RateState:
    """The state by the limits of now: what was reserved under others stays reserved, at the new rate."""
    requests, tokens = limit.requests_per_minute or 0, limit.tokens_per_minute or 0
    if (state.requests_per_minute, state.tokens_per_minute) == (requests, tokens):
        return state
    return RateState(
        _rescale(state.requests_due, state.requests_per_minute, requests, now),
        _rescale(state.tokens_due, state.tokens_per_minute, tokens, now),
        requests,
        tokens,
    )


def _rescale(due: float, before: int, after: int, now: float) -> float:
    if not before or not after:
        return 0.0
    return now + (due - now) * before / after if due > now else due


def encode(state: RateState) -> bytes:
    return orjson.dumps(asdict(state))


def decode(data: bytes) -> RateState:
    """The state in an entry; ``FRESH`` for an entry that is not ours: the limit begins anew."""
    try:
        found: dict[str, Any] = orjson.loads(data)
        return RateState(**{f.name: type(getattr(FRESH, f.name))(found[f.name]) for f in fields(RateState)})
    except (ValueError, TypeError, KeyError):
        return FRESH
