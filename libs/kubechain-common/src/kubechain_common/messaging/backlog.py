"""How much work waits in a stream, or is under way: read from the server whenever somebody wants to know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import nats.js.errors

from kubechain_common.messages.topology import StreamSpec
from kubechain_common.messaging import errors
from kubechain_common.messaging.bus import Bus

_PAGE = 256
"""Consumers that the server lists at a time."""


@dataclass(frozen=True)
class Backlog:
    """``messages``: those in the stream, which wait or are being worked on. ``workable``: how many of them could be
    worked on at the same time by however many replicas; the rest is held back by limits, such as maxConcurrency.
    """

    messages: int
    workable: int


async def read_backlog(bus: Bus, stream: StreamSpec) -> Backlog:
    """How much work the stream holds now. Raises MessagingError."""
    try:
        await bus.connection.ready()
        js = bus.connection.js
        info = await js.stream_info(stream.name)
        workable = await _count_workable(js, stream.name) if info.state.messages else 0
    except nats.js.errors.NotFoundError:
        return Backlog(0, 0)
    except errors.ANY as error:
        raise errors.translate(error, f"reading the backlog of {stream.name}") from error
    return Backlog(info.state.messages, workable)


async def _count_workable(js: Any, stream: str) -> int:
    count = offset = 0
    while True:
        page = await js.consumers_info(stream, offset)
        for consumer in page:
            present = (consumer.num_pending or 0) + (consumer.num_ack_pending or 0)
            count += min(present, consumer.config.max_ack_pending or present)
        offset += len(page)
        if len(page) < _PAGE:
            return count
