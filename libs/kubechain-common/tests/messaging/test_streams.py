"""When a stream counts as lost."""

from __future__ import annotations

from copy import copy
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import nats.js.errors
import pytest

from kubechain_common.messages.permissions import streams_of
from kubechain_common.messages.topology import ALL_STREAMS, CLAIMS_STREAM, LLM_REQUESTS, LLM_RESULTS, SHARED_STREAM
from kubechain_common.messaging.errors import BusUnavailableError, MessagingError, TopologyError
from kubechain_common.messaging.streams import Streams

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


class FakeJetStream:
    """Streams and when each was created."""

    def __init__(self) -> None:
        self.created = dict.fromkeys(ALL_STREAMS, NOW)
        self.added: list[str] = []
        self.refusal: Exception | None = None

    async def add_stream(self, config: Any) -> Any:
        if self.refusal is not None:
            raise self.refusal
        self.added.append(config.name)
        return SimpleNamespace(created=self.created[config.name])


async def test_the_first_look_loses_nothing() -> None:
    js = FakeJetStream()
    assert not await Streams(ALL_STREAMS, 1).ensure(js)
    assert js.added == list(ALL_STREAMS)


async def test_streams_of_the_same_age_are_the_same() -> None:
    js, streams = FakeJetStream(), Streams(ALL_STREAMS, 1)
    await streams.ensure(js)
    assert not await streams.ensure(js)


async def test_one_stream_of_another_age_was_lost_and_is_told_once() -> None:
    js, streams = FakeJetStream(), Streams(ALL_STREAMS, 1)
    await streams.ensure(js)
    js.created[ALL_STREAMS[2]] = NOW + timedelta(microseconds=1)
    assert await streams.ensure(js) == {ALL_STREAMS[2]}
    assert not await streams.ensure(js)


async def test_a_loss_that_was_seen_before_a_failure_halfway_is_told_later() -> None:
    js, streams = FakeJetStream(), Streams(ALL_STREAMS, 1)
    await streams.ensure(js)
    js.created[ALL_STREAMS[0]] = NOW + timedelta(seconds=1)
    last = js.created.pop(ALL_STREAMS[-1])
    with pytest.raises(KeyError):
        await streams.ensure(js)
    js.created[ALL_STREAMS[-1]] = last
    assert await streams.ensure(js) == {ALL_STREAMS[0]}


async def test_a_service_looks_after_its_own_streams_alone() -> None:
    js = FakeJetStream()
    await Streams(streams_of("llm-gateway"), 1).ensure(js)
    assert js.added == [LLM_REQUESTS.name, LLM_RESULTS.name, SHARED_STREAM, CLAIMS_STREAM]


@pytest.mark.parametrize(
    ("code", "kind"), [(10005, BusUnavailableError), (10074, TopologyError), (10052, TopologyError)]
)
async def test_servers_that_are_not_there_yet_are_waited_for(code: int, kind: type[MessagingError]) -> None:
    js = FakeJetStream()
    js.refusal = nats.js.errors.BadRequestError(code=400, err_code=code, description="no suitable peers for placement")
    with pytest.raises(MessagingError, match=r"no suitable peers") as caught:
        await Streams(ALL_STREAMS, 3).ensure(js)
    assert type(caught.value) is kind


@pytest.mark.parametrize(("has", "wanted", "gets"), [(1, 3, 3), (3, 1, 3), (None, 1, None), (3, 3, 3)])
async def test_replicas_are_only_ever_raised(has: int | None, wanted: int, gets: int | None) -> None:
    js = ExistingStream(replicas=has)
    await Streams([LLM_REQUESTS.name], wanted).ensure(js)
    assert js.config.num_replicas == gets
    assert js.updated == (has != gets)


class ExistingStream:
    """The stream of LLM requests, made by a version that knew of other replicas."""

    def __init__(self, replicas: int | None) -> None:
        self.config: Any = None
        self.updated = False
        self._replicas = replicas

    async def add_stream(self, config: Any) -> Any:
        self.config = copy(config)
        self.config.num_replicas = self._replicas
        raise nats.js.errors.BadRequestError(code=400, err_code=10058, description="different")

    async def stream_info(self, name: str) -> Any:
        return SimpleNamespace(config=self.config, created=NOW)

    async def update_stream(self, config: Any) -> Any:
        self.updated, self.config = True, config
        return SimpleNamespace(created=NOW)
