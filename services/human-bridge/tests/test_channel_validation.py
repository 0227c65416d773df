from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

import pytest

from kubechain_common.api.v1alpha1 import ContactChannel
from kubechain_common.api.v1alpha1.status import ReadinessStatus
from kubechain_common.runtime.validated_kind import Trouble, Verdict
from kubechain_human_bridge.channels.base import Ask, Channel, OwnChannel
from kubechain_human_bridge.channels.errors import ChannelError, ChannelRefusedError, ChannelUnavailableError
from kubechain_human_bridge.contactchannels.access import ChannelAccess
from kubechain_human_bridge.contactchannels.validation import ChannelValidation

OK = "HumanLayer email channel validated successfully"
SPEC = {
    "type": "email",
    "email": {"address": "a@example.com"},
    "apiKeyFrom": {"secretKeyRef": {"name": "s", "key": "k"}},
}
CHANNEL = ContactChannel.model_validate(
    {"metadata": {"name": "c", "namespace": "default", "uid": "u", "generation": 1}, "spec": SPEC}
)


class World(OwnChannel):
    """A Secret, and what the channel says of itself."""

    def __init__(self, outcome: str | ChannelError = OK) -> None:
        self.outcome = outcome
        self.secret: dict[str, str] | None = {"k": "1"}
        self.built: list[Mapping[str, str]] = []
        self.written: list[ReadinessStatus] = []
        self.validation = ChannelValidation(ChannelAccess(self, self, self.build), self.write)

    async def validate_channel(self) -> str | Trouble | Verdict:
        secrets = await self.validation.prepare(CHANNEL)
        return secrets if isinstance(secrets, Verdict) else await self.validation.ask(CHANNEL, secrets)

    def get(self, namespace: str, name: str) -> ContactChannel | None:
        raise AssertionError("the channel is at hand")

    async def read(self, namespace: str, name: str) -> Mapping[str, str] | None:
        return self.secret

    def build(self, channel: ContactChannel, secrets: Mapping[str, str]) -> Channel:
        self.built.append(secrets)
        return self

    async def validate(self) -> str:
        if isinstance(self.outcome, ChannelError):
            raise self.outcome
        return self.outcome

    async def send(self, ask: Ask) -> str:
        raise AssertionError("a validation must not reach a person")

    async def aclose(self) -> None:
        pass

    async def write(self, channel: ContactChannel, status: ReadinessStatus) -> ContactChannel:
        self.written.append(status)
        return channel


async def test_the_channel_is_asked_with_its_secrets() -> None:
    world = World()
    assert await world.validate_channel() == OK
    assert world.built == [{"apiKeyFrom": "1"}]


async def test_a_missing_secret_is_told_without_asking_anybody() -> None:
    world = World()
    world.secret = None
    sentence = 'Secret "s" not found in namespace "default": create it with key k'
    assert await world.validate_channel() == Verdict("Error", "SecretValidationFailed", sentence)
    assert world.built == []


async def test_a_refusal_is_told() -> None:
    world = World(ChannelRefusedError("invalid HumanLayer API key"))
    assert await world.validate_channel() == Trouble("invalid HumanLayer API key", retryable=False)


async def test_trouble_on_the_way_is_told() -> None:
    world = World(ChannelUnavailableError("HumanLayer can not be reached: no answer in time", retry_after=7))
    assert await world.validate_channel() == Trouble("HumanLayer can not be reached: no answer in time", True, 7)


async def test_a_channel_that_can_not_be_built_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(channel: ContactChannel, secrets: Mapping[str, str]) -> Channel:
        raise ChannelRefusedError("the channel has no webhook")

    monkeypatch.setattr(World, "build", staticmethod(refuse))
    assert await World().validate_channel() == Trouble("the channel has no webhook", retryable=False)


@pytest.mark.parametrize(
    ("failures", "retry_after", "shortest", "longest"),
    [(1, None, 0.5, 1), (2, None, 1, 2), (7, None, 30, 60), (1, 7, 7, 7), (1, 900, 60, 60)],
)
def test_the_back_off_doubles_up_to_a_minute(
    failures: int, retry_after: float | None, shortest: float, longest: float
) -> None:
    assert shortest <= World().validation.retry_delay(failures, retry_after) <= longest


async def test_the_status_is_written() -> None:
    world = World()
    status = CHANNEL.status.mark("Ready", "ValidationSucceeded", OK, generation=1, now=datetime(2026, 1, 1, tzinfo=UTC))
    await world.validation.write(CHANNEL, status)
    assert world.written == [status]
