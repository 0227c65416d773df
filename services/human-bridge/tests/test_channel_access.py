from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from kubechain_common.api.v1alpha1 import ContactChannel
from kubechain_common.kube.errors import ForbiddenError, UnavailableError
from kubechain_common.messages import ObjectRef
from kubechain_human_bridge.channels.base import Ask, Channel, OwnChannel
from kubechain_human_bridge.contactchannels.access import ChannelAccess, ChannelNotUsableError
from kubechain_human_bridge.contactchannels.secrets import ChannelSecrets
from kubechain_human_bridge.web.roads import NamedChannels


class FakeChannel(OwnChannel):
    def __init__(self, secrets: Mapping[str, str]) -> None:
        self.secrets = secrets
        self.closed = 0

    async def validate(self) -> str:
        return "fine"

    async def send(self, ask: Ask) -> str:
        return "sent"

    async def aclose(self) -> None:
        self.closed += 1


def build(generation: int = 1, uid: str = "u") -> ContactChannel:
    spec: dict[str, Any] = {
        "type": "email",
        "email": {"address": "a@example.com"},
        "apiKeyFrom": {"secretKeyRef": {"name": "s", "key": "k"}},
    }
    metadata = {"name": "c", "namespace": "default", "uid": uid, "generation": generation}
    return ContactChannel.model_validate({"metadata": metadata, "spec": spec})


class World:
    def __init__(self) -> None:
        self.channel = build()
        self.secret: dict[str, str] | None = {"k": "1"}
        self.forbidden = False
        self.built: list[FakeChannel] = []
        self.access = ChannelAccess(self, self, self.build)

    def get(self, namespace: str, name: str) -> ContactChannel | None:
        return self.channel if (namespace, name) == self.channel.key else None

    async def read(self, namespace: str, name: str) -> Mapping[str, str] | None:
        if self.forbidden:
            raise ForbiddenError("no")
        return self.secret

    def build(self, channel: ContactChannel, secrets: Mapping[str, str]) -> Channel:
        self.built.append(FakeChannel(secrets))
        return self.built[-1]


async def test_a_client_is_kept_until_the_spec_or_a_secret_changes() -> None:
    world = World()
    for _ in range(2):
        async with world.access.open(world.channel) as client:
            assert client is world.built[0]
    world.secret = {"k": "2"}
    async with world.access.open(world.channel) as client:
        assert client is world.built[1]
    async with world.access.open(build(generation=2)) as client:
        assert client is world.built[2]
    assert [built.closed for built in world.built] == [1, 1, 0]
    assert [built.secrets["apiKeyFrom"] for built in world.built] == ["1", "2", "2"]


async def test_a_client_that_is_replaced_in_use_is_closed_when_its_last_user_has_left() -> None:
    world = World()
    async with world.access.open(world.channel), world.access.open(world.channel):
        world.secret = {"k": "2"}
        async with world.access.open(world.channel):
            assert world.built[0].closed == 0
    assert [built.closed for built in world.built] == [1, 0]


async def test_clients_are_closed_with_their_channel_and_at_the_end() -> None:
    world = World()
    async with world.access.open(world.channel):
        await world.access.forget("u")
        await world.access.forget("u")
        assert world.built[0].closed == 0
    assert world.built[0].closed == 1
    async with world.access.open(world.channel):
        pass
    await world.access.aclose()
    assert [built.closed for built in world.built] == [1, 1]


async def test_what_stands_in_the_way_is_said() -> None:
    world = World()
    world.secret = None
    with pytest.raises(ChannelNotUsableError, match='Secret "s" not found in namespace "default"'):
        async with world.access.open(world.channel):
            pass
    world.forbidden = True
    with pytest.raises(ChannelNotUsableError, match='may not read Secret "s": grant it get and watch'):
        async with world.access.open(world.channel):
            pass
    assert world.built == []


async def test_only_the_very_channel_is_found() -> None:
    world = World()
    assert world.access.find(ObjectRef.of(world.channel)) is world.channel
    assert world.access.find(ObjectRef(namespace="default", name="c", uid="earlier")) is None
    assert world.access.find_named("other", "c") is None


async def test_nobody_is_turned_away_before_the_channels_are_known() -> None:
    """A program whose answer is refused for good does not come again."""
    world = World()
    known = asyncio.Event()
    channels = NamedChannels(world.access, known.is_set)
    for name in ("c", "other"):
        with pytest.raises(UnavailableError):
            await channels.find_channel("default", name)
    known.set()
    found = await channels.find_channel("default", "c")
    assert found is not None
    assert found.channel is world.channel
    assert await channels.find_channel("default", "other") is None


async def test_a_change_wakes_those_who_waited_for_it() -> None:
    world = World()
    before = world.access.changed
    world.access.notify_changed()
    assert before.is_set()
    assert not world.access.changed.is_set()


async def test_secrets_are_read_for_whoever_verifies_with_them() -> None:
    world = World()
    secrets = await world.access.read_secrets(world.channel)
    assert isinstance(secrets, ChannelSecrets)
    assert secrets.values == {"apiKeyFrom": "1"}
