"""When a stream counts as lost."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from kubechain_common.messaging.streams import ALL_STREAMS, Streams

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


class FakeJetStream:
    """Streams and when each was created."""

    def __init__(self) -> None:
        self.created = dict.fromkeys(ALL_STREAMS, NOW)
        self.added: list[str] = []

    async def add_stream(self, config: Any) -> Any:
        self.added.append(config.name)
        return SimpleNamespace(created=self.created[config.name])


async def test_the_first_look_loses_nothing() -> None:
    js = FakeJetStream()
    assert not await Streams().ensure(js)
    assert js.added == list(ALL_STREAMS)


async def test_streams_of_the_same_age_are_the_same() -> None:
    js, streams = FakeJetStream(), Streams()
    await streams.ensure(js)
    assert not await streams.ensure(js)


async def test_one_stream_of_another_age_was_lost_and_is_told_once() -> None:
    js, streams = FakeJetStream(), Streams()
    await streams.ensure(js)
    js.created[ALL_STREAMS[2]] = NOW + timedelta(microseconds=1)
    assert await streams.ensure(js)
    assert not await streams.ensure(js)


async def test_a_loss_that_was_seen_before_a_failure_halfway_is_told_later() -> None:
    js, streams = FakeJetStream(), Streams()
    await streams.ensure(js)
    js.created[ALL_STREAMS[0]] = NOW + timedelta(seconds=1)
    last = js.created.pop(ALL_STREAMS[-1])
    with pytest.raises(KeyError):
        await streams.ensure(js)
    js.created[ALL_STREAMS[-1]] = last
    assert await streams.ensure(js)
