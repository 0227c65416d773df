"""The pull protocol: what the server's words do to what is outstanding."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from kubechain_common.messaging.pull import SILENCE, Pull


class Owner:
    def __init__(self, client: Any) -> None:
        self.messages: list[Any] = []
        self.changes = 0
        self.pull = Pull(client, "STREAM", "durable", self._take, self._note)
        self._client = client

    async def _take(self, message: Any) -> None:
        self.messages.append(message)

    def _note(self) -> None:
        self.changes += 1

    async def hear(self, message: Any) -> None:
        await self._client.subscriptions[-1].deliver(message)


@pytest.fixture
async def owner(nats_client: Any) -> Owner:
    owner = Owner(nats_client)
    await owner.pull.open()
    return owner


def build_message(**fields: Any) -> Any:
    return SimpleNamespace(**{"data": b"{}", "headers": None, **fields})


def build_status(code: str, **headers: str) -> Any:
    return build_message(data=b"", headers={"Status": code, **{k.replace("_", "-"): v for k, v in headers.items()}})


async def test_a_request_names_the_consumer_and_how_many_may_come(owner: Owner, nats_client: Any) -> None:
    await owner.pull.request(5)
    [(subject, body, reply)] = nats_client.published
    assert subject == "$JS.API.CONSUMER.MSG.NEXT.STREAM.durable"
    assert (body["batch"], body["expires"], body["idle_heartbeat"]) == (5, 30_000_000_000, 10_000_000_000)
    assert reply == "_INBOX.0"


async def test_each_message_is_handed_over_and_counted(owner: Owner) -> None:
    await owner.pull.request(3)
    await owner.hear(build_message())
    await owner.hear(build_message(headers={"traceparent": "x"}))
    assert len(owner.messages) == 2
    assert owner.pull.outstanding == 1
    assert owner.pull.proven


async def test_an_empty_message_with_a_claim_is_a_message(owner: Owner) -> None:
    await owner.pull.request(1)
    await owner.hear(build_message(data=b"", headers={"Kubechain-Claim": "c"}))
    assert len(owner.messages) == 1


async def test_an_expired_request_gives_back_what_it_did_not_deliver(owner: Owner) -> None:
    await owner.pull.request(3)
    await owner.pull.request(2)
    await owner.hear(build_message())
    await owner.hear(build_status("408", Nats_Pending_Messages="2"))
    assert owner.pull.outstanding == 2
    assert owner.changes == 1
    assert not owner.pull.lost


async def test_an_idle_heartbeat_changes_nothing(owner: Owner) -> None:
    await owner.pull.request(3)
    await owner.hear(build_status("100"))
    assert (owner.pull.outstanding, owner.changes, owner.pull.lost) == (3, 0, "")


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (build_status("409", Description="Consumer Deleted"), "Consumer Deleted"),
        (build_status("503"), "no such consumer"),
    ],
)
async def test_a_refusal_loses_the_pull_once(owner: Owner, status: Any, reason: str) -> None:
    await owner.pull.request(3)
    await owner.hear(status)
    await owner.hear(status)
    assert owner.pull.lost == reason
    assert owner.changes == 1
    assert not owner.pull.proven


async def test_silence_loses_the_pull_only_while_something_is_outstanding(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: start + SILENCE + 1)
    owner.pull.check_silence()
    await owner.pull.request(1)
    owner.pull.check_silence()
    assert owner.changes == 0, "it was only just asked"
    monkeypatch.setattr(time, "monotonic", lambda: start + 2 * SILENCE + 2)
    owner.pull.check_silence()
    assert owner.pull.lost == "no heartbeat from the server"


async def test_closing_hands_over_what_was_on_its_way(owner: Owner, nats_client: Any) -> None:
    nats_client.subscriptions[-1].late = [build_message()]
    await owner.pull.close()
    await owner.pull.close()
    assert nats_client.subscriptions[-1].ended == "drain"
    assert len(owner.messages) == 1


async def test_closing_without_a_connection_does_not_wait_for_one(owner: Owner, nats_client: Any) -> None:
    nats_client.is_connected = False
    await owner.pull.close()
    assert nats_client.subscriptions[-1].ended == "unsubscribe"
