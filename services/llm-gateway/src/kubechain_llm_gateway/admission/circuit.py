"""Whether an LLM's provider may be called now: the pure half of what all replicas know about it.

    closed --(TRIP_AFTER failures in a row)--> open --(a probe is answered)--> trial --(a call succeeds)--> closed
                                                ^                                |
                                                +--------(a call fails)----------+

While it is open nobody calls; one replica at a time probes, by listing models, which costs nothing: 2 s after it
opened, then after 4 s, 8 s, and so on to a minute. A probe says that somebody is there, not that completions work, so
the first calls are a trial, a few at a time. Beside that, a provider that asks to be left alone (Retry-After) is left
alone.

Times are seconds since the epoch. What is known is of one generation of the LLM: an edited LLM may have another
provider, so it starts closed.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import orjson

from kubechain_common.api.v1alpha1.status import shorten
from kubechain_llm_gateway.providers.errors import (
    BrokenReplyError,
    ProviderError,
    TransientProviderError,
    UnreachableProviderError,
)

TRIP_AFTER = 5
"""Failures in a row, as one replica counts them."""
FIRST_PROBE = 2.0
LONGEST_PROBE = 60.0
LONGEST_PAUSE = 900.0
"""Seconds that a provider's Retry-After is honoured at most."""

_SAME_PAUSE = 0.5
"""Seconds: calls that were refused together ask for nearly the same."""
_LIMITED = frozenset({429, 503, 529})
_MAX_REASON = 1000


class Circuit(StrEnum):
    CLOSED = "closed"
    TRIAL = "trial"
    OPEN = "open"


class Sign(StrEnum):
    """What a call says about its provider."""

    ALIVE = "alive"
    DEAD = "dead"
    UNCLEAR = "unclear"
    """The provider answered, but not as a healthy one does."""


@dataclass(frozen=True)
class Health:
    """What is known of a provider. ``since`` is when the circuit became what it is, ``probes`` how often it was probed
    in vain since it was closed.

    ``reason`` is what the last failure said.
    """

    circuit: Circuit = Circuit.CLOSED
    generation: int = 0
    since: float = 0.0
    probes: int = 0
    probe_at: float = 0.0
    reason: str = ""
    paused_until: float = 0.0
    pause_reason: str = ""


HEALTHY = Health()


class Obstacle(StrEnum):
    UNAVAILABLE = "unavailable"
    PAUSED = "paused"


@dataclass(frozen=True)
class Block:
    """Why no call may be made now. ``until`` is None where a probe ends it."""

    obstacle: Obstacle
    sentence: str
    until: float | None = None


# --- what is so ---


def find_block(health: Health, generation: int, now: float) -> Block | None:
    """What stands in the way of a call."""
    if health.generation != generation:
        return None
    if health.circuit is Circuit.OPEN:
        return Block(Obstacle.UNAVAILABLE, f"its provider is unavailable ({health.reason}); it is asked now and then")
    if health.paused_until > now:
        until = datetime.fromtimestamp(health.paused_until, UTC)
        sentence = f"its provider asks to be left alone until {until:%H:%M:%S} UTC ({health.pause_reason})"
        return Block(Obstacle.PAUSED, sentence, health.paused_until)
    return None


def circuit_of(health: Health, generation: int) -> Circuit:
    return health.circuit if health.generation == generation else Circuit.CLOSED


def read_sign(error: ProviderError | None) -> Sign:
    """What a call's end, None for an answer, says about the provider."""
    if isinstance(error, UnreachableProviderError):
        return Sign.DEAD
    if isinstance(error, TransientProviderError) and (error.status_code is None or error.status_code >= 500):
        return Sign.UNCLEAR if read_pause(error) is not None else Sign.DEAD
    return Sign.UNCLEAR if isinstance(error, BrokenReplyError) else Sign.ALIVE


def read_pause(error: ProviderError | None) -> float | None:
    """Seconds that the provider asks everybody to wait."""
    if error is None or not error.retryable or not error.retry_after or error.status_code not in _LIMITED:
        return None
    return min(error.retry_after, LONGEST_PAUSE)


# --- what becomes of it ---


def pause(health: Health, generation: int, seconds: float, reason: str, now: float) -> Health:
    """The health of a provider that is left alone for so long, unless it is left alone at least as long already."""
    health = _of_generation(health, generation)
    if now + seconds <= health.paused_until + _SAME_PAUSE:
        return health
    return replace(health, paused_until=now + seconds, pause_reason=shorten(reason, _MAX_REASON))


def trip(health: Health, generation: int, reason: str, began: float, now: float) -> Health:
    """The health after too many failures, or a trial that failed. ``began`` is when the last call that failed began.

    A call that began before the circuit became what it is says nothing new.
    """
    health = _of_generation(health, generation)
    if health.circuit is Circuit.OPEN or began < health.since:
        return health
    return replace(
        health,
        circuit=Circuit.OPEN,
        since=now,
        probe_at=now + probe_interval(health.probes),
        reason=shorten(reason, _MAX_REASON),
    )


def claim_probe(health: Health, now: float) -> Health:
    """The health with the probe that is due taken; whoever comes later finds it taken until the next one is due."""
    if health.circuit is not Circuit.OPEN or health.probe_at > now:
        return health
    probes = health.probes + 1
    return replace(health, probes=probes, probe_at=now + probe_interval(probes))


def answer_probe(health: Health, now: float) -> Health:
    """The health after a probe was answered: the next call is the trial."""
    if health.circuit is not Circuit.OPEN:
        return health
    return replace(health, circuit=Circuit.TRIAL, since=now)


def recover(health: Health, now: float) -> Health:
    """The health after a call succeeded."""
    if health.circuit is Circuit.CLOSED:
        return health
    closed = Health(generation=health.generation, since=now)
    return replace(closed, paused_until=health.paused_until, pause_reason=health.pause_reason)


def probe_interval(probes: int) -> float:
    """Seconds until the next probe, after so many in vain."""
    return min(FIRST_PROBE * 2.0 ** min(probes, 30), LONGEST_PROBE)


def _of_generation(health: Health, generation: int) -> Health:
    return health if health.generation == generation else Health(generation=generation)


# --- in the shared entry ---


def encode(health: Health) -> bytes:
    return orjson.dumps(asdict(health))


def decode(data: bytes) -> Health:
    """The health in an entry; ``HEALTHY`` for an entry that is not ours: nothing depends on a lost word, and bad health
    shows again.
    """
    try:
        known: dict[str, Any] = {
            f.name: value for f in fields(Health) if (value := orjson.loads(data).get(f.name)) is not None
        }
        known = {name: type(getattr(HEALTHY, name))(value) for name, value in known.items()}
        return Health(**known)
    except (ValueError, TypeError, AttributeError):
        return HEALTHY
