"""The backlog of a service on its /metrics, for autoscalers and dashboards: looked up when it is asked for.

Every replica shows the same figures, of the whole stream, so whoever reads them takes the highest, not the sum. While
NATS can not tell, there is no figure: an old one would keep an autoscaler from doing what it does without one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from prometheus_client import Gauge

from kubechain_common.messages.topology import StreamSpec
from kubechain_common.messaging.backlog import read_backlog
from kubechain_common.messaging.bus import Bus
from kubechain_common.messaging.errors import MessagingError
from kubechain_common.telemetry.logging import get_logger

SECONDS = 2.0
"""How long a scrape waits for NATS."""

_MESSAGES = Gauge("kubechain_backlog_messages", "Messages that wait or are being worked on", ["stream"])
_WORKABLE = Gauge(
    "kubechain_backlog_workable_messages",
    "Of kubechain_backlog_messages those that could be worked on at the same time: maxConcurrency holds the others",
    ["stream"],
)

_log = get_logger(__name__)


class BacklogFigures:
    """The figures of the streams that this service takes its work from."""

    def __init__(self, bus: Bus, streams: Sequence[StreamSpec]) -> None:
        self._bus = bus
        self._streams = streams

    async def refresh(self) -> None:
        """Bring the figures up to date."""
        for stream in self._streams:
            try:
                async with asyncio.timeout(SECONDS):
                    backlog = await read_backlog(self._bus, stream)
            except (MessagingError, TimeoutError) as error:
                _log.debug("no figure of the backlog", stream=stream.name, error=str(error))
                for gauge in (_MESSAGES, _WORKABLE):
                    gauge.remove(stream.name)
            else:
                _MESSAGES.labels(stream.name).set(backlog.messages)
                _WORKABLE.labels(stream.name).set(backlog.workable)
