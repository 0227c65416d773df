from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from kubechain_common.api.v1alpha1 import ContactChannel
from kubechain_common.api.v1alpha1.contactchannel import ContactChannelStatus
from kubechain_common.api.v1alpha1.meta import Resource
from kubechain_common.kube.errors import UnavailableError
from kubechain_human_bridge.channel_access import ChannelAccess
from kubechain_human_bridge.channels.base import Ask, Channel, OwnChannel
from kubechain_human_bridge.channels.errors import ChannelError, ChannelRefusedError, ChannelUnavailableError
from kubechain_human_bridge.contactchannel_reconciler import ContactChannelReconciler

KEY = ("default", "c")
OK = "HumanLayer email channel validated successfully"
MISSING = 'Secret "s" not found in namespace "default": create it with key k'


class World(OwnChannel):
    """One ContactChannel, its Secret, and what the channel says of itself."""

    def __init__(self, outcome: str | ChannelError = OK) -> None:
        self.outcome = outcome
        self.secret: dict[str, str] | None = {"k": "1"}
        self.unavailable = False
        self.validations = 0
        self.events: list[tuple[str, str, str]] = []
        self.writes: list[ContactChannelStatus] = []
        self.channel: ContactChannel | None = self.build_object()
        self.access = ChannelAccess(self, self, self.build)
        self.start()

    def start(self) -> None:
        """A new leader."""
        self.reconciler = ContactChannelReconciler(
            self, self.access, self.write, self, lambda: datetime(2026, 1, 1, tzinfo=UTC)
        )

    def build_object(self, generation: int = 1, **status: Any) -> ContactChannel:
        spec = {
            "type": "email",
            "email": {"address": "a@example.com"},
            "apiKeyFrom": {"secretKeyRef": {"name": "s", "key": "k"}},
        }
        metadata = {"name": "c", "namespace": "default", "uid": "u", "generation": generation}
        return ContactChannel.model_validate({"metadata": metadata, "spec": spec, "status": status})

    def edit(self, generation: int) -> None:
        assert self.channel is not None
        metadata = self.channel.metadata.model_copy(update={"generation": generation})
        self.channel = self.channel.model_copy(update={"metadata": metadata})

    def get(self, namespace: str, name: str) -> ContactChannel | None:
        return self.channel

    async def read(self, namespace: str, name: str) -> Mapping[str, str] | None:
        if self.unavailable:
            raise UnavailableError("away")
        return self.secret

    def build(self, channel: ContactChannel, secrets: Mapping[str, str]) -> Channel:
        return self

    async def write(self, channel: ContactChannel, status: ContactChannelStatus) -> ContactChannel:
        self.writes.append(status)
        self.channel = channel.model_copy(update={"status": status})
        return self.channel

    def event(self, obj: Resource, event_type: str, reason: str, message: str) -> None:
        self.events.append((event_type, reason, message))

    async def validate(self) -> str:
        self.validations += 1
        if isinstance(self.outcome, ChannelError):
            raise self.outcome
        return self.outcome

    async def send(self, ask: Ask) -> str:
        raise AssertionError("a validation must not reach a person")

    async def aclose(self) -> None:
        pass

    @property
    def status(self) -> ContactChannelStatus:
        assert self.channel is not None
        return self.channel.status


async def test_a_good_channel_becomes_ready_once() -> None:
    world = World()
    for _ in range(3):
        assert await world.reconciler.reconcile(KEY) is None
    assert world.status.ready
    assert world.status.status_detail == OK
    assert world.events == [
        ("Normal", "Initializing", "Starting validation"),
        ("Normal", "ValidationSucceeded", OK),
    ]
    assert (world.validations, len(world.writes)) == (1, 1)


async def test_a_new_leader_asks_again_and_says_nothing_new() -> None:
    world = World()
    await world.reconciler.reconcile(KEY)
    world.events.clear()
    world.start()
    await world.reconciler.reconcile(KEY)
    assert (world.validations, len(world.writes), world.events) == (2, 1, [])


async def test_a_missing_secret_is_an_error_that_heals() -> None:
    world = World()
    world.secret = None
    assert await world.reconciler.reconcile(KEY) is None
    assert (world.status.status, world.status.status_detail) == ("Error", MISSING)
    assert world.events[-1] == ("Warning", "SecretValidationFailed", MISSING)
    assert world.validations == 0
    world.secret = {"k": "1"}
    await world.reconciler.reconcile(KEY)
    assert world.status.ready
    world.secret = None
    await world.reconciler.reconcile(KEY)
    assert not world.status.ready


async def test_a_refused_channel_waits_for_a_change_and_is_looked_at_rarely() -> None:
    world = World(ChannelRefusedError("invalid HumanLayer API key"))
    result = await world.reconciler.reconcile(KEY)
    assert result is not None
    assert result.requeue_after == pytest.approx(300, abs=1)
    assert world.events[-1] == ("Warning", "ValidationFailed", "invalid HumanLayer API key")
    await world.reconciler.reconcile(KEY)
    assert world.validations == 1
    world.outcome, world.secret = OK, {"k": "2"}
    assert await world.reconciler.reconcile(KEY) is None
    assert world.status.ready


async def test_trouble_on_the_way_is_tried_again() -> None:
    world = World(ChannelUnavailableError("HumanLayer can not be reached: no answer in time", retry_after=7))
    result = await world.reconciler.reconcile(KEY)
    assert result is not None
    assert result.requeue_after == pytest.approx(7, abs=0.5)
    assert not world.status.ready


async def test_the_back_off_grows() -> None:
    world = World(ChannelUnavailableError("away"))
    delays = []
    for _ in range(8):
        result = await world.reconciler.reconcile(KEY)
        assert result is not None
        assert result.requeue_after is not None
        delays.append(result.requeue_after)
        let_pass(world.reconciler)
    assert delays[0] <= 1
    assert 30 <= delays[-1] <= 60
    assert world.validations == 8


def let_pass(reconciler: ContactChannelReconciler) -> None:
    """Make the retry due, in place of waiting for it."""
    checked = reconciler._checked[KEY]
    reconciler._checked[KEY] = replace(checked, retry_at=asyncio.get_running_loop().time())


async def test_a_validated_channel_stays_ready_while_the_other_side_is_away() -> None:
    world = World()
    await world.reconciler.reconcile(KEY)
    world.start()
    world.outcome = ChannelUnavailableError("away")
    assert await world.reconciler.reconcile(KEY) is not None
    assert world.status.ready
    world.start()
    world.outcome = ChannelRefusedError("invalid HumanLayer API key")
    await world.reconciler.reconcile(KEY)
    assert not world.status.ready


async def test_an_edited_channel_is_asked_again_and_is_not_ready_on_credit() -> None:
    world = World()
    await world.reconciler.reconcile(KEY)
    world.outcome = ChannelUnavailableError("away")
    world.edit(generation=2)
    await world.reconciler.reconcile(KEY)
    assert not world.status.ready
    assert world.status.observed_generation == 2


async def test_nothing_is_said_while_the_api_server_is_away() -> None:
    world = World()
    world.unavailable = True
    with pytest.raises(UnavailableError):
        await world.reconciler.reconcile(KEY)
    assert world.writes == []


async def test_a_deleted_channel_is_left_alone() -> None:
    world = World()
    world.channel = None
    assert await world.reconciler.reconcile(KEY) is None
    assert world.events == []
