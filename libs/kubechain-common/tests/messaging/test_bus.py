"""What is published when the server answers as one of several does, or not at all."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import nats.errors
import nats.js.errors
import pytest

from kubechain_common.messages import Envelope
from kubechain_common.messaging.bus import HEADER_MARGIN, Bus, PublishOutcome
from kubechain_common.messaging.claims import ClaimStore
from kubechain_common.messaging.codec import claim_of
from kubechain_common.messaging.connection import Connection
from kubechain_common.messaging.errors import BusFullError, BusUnavailableError, PublishRefusedError
from kubechain_common.messaging.shared_entries import SharedEntries
from kubechain_common.messaging.started_calls import Claim, StartedCalls


def refusal(code: int, err_code: int, description: str = "") -> Exception:
    kind = nats.js.errors.BadRequestError if code == 400 else nats.js.errors.APIError
    error: Exception = kind(code=code, err_code=err_code, description=description)
    return error


TIMEOUT = nats.errors.TimeoutError()
WRONG_LAST = refusal(400, 10071, "wrong last sequence: 7")
SUBJECT_IN_PROCESS = refusal(400, 10164, "wrong last sequence")
ID_IN_PROCESS = refusal(409, 10158, "duplicate message id is in process")
TOO_MANY = refusal(429, 10167, "too many requests")
STORED = SimpleNamespace(seq=7, duplicate=False)

IN_PROCESS = [
    pytest.param(SUBJECT_IN_PROCESS, id="subject"),
    pytest.param(ID_IN_PROCESS, id="id"),
    pytest.param(TOO_MANY, id="too-many"),
]


class FakeJetStream:
    """Gives the answers to publishes in turn; ``held`` is what a subject is read to hold."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.claims: list[str | None] = []
        self.held = b""
        self.reads = 0

    async def publish(self, subject: str, payload: bytes, headers: Any = None) -> Any:
        self.claims.append(claim_of(headers))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def get_last_msg(self, stream: str, subject: str) -> Any:
        self.reads += 1
        return SimpleNamespace(data=self.held, seq=7)


class FakeClaims:
    """The object store: what is in it, and how often something was put there."""

    def __init__(self) -> None:
        self.held: set[str] = set()
        self.puts = 0

    async def put(self, subject: str, payload: bytes, limit: int) -> str:
        self.puts += 1
        self.held.add(f"claim-{self.puts}")
        return f"claim-{self.puts}"

    async def has(self, name: str) -> bool:
        return name in self.held

    async def delete(self, name: str) -> None:
        self.held.remove(name)


class Big(Envelope):
    """Its payload is over what the client takes for a message's."""

    text: str = "x" * HEADER_MARGIN


async def nothing(*_: object) -> None: ...


def connection_to(js: FakeJetStream) -> Connection:
    client = SimpleNamespace(max_payload=2 * HEADER_MARGIN)
    return cast("Connection", SimpleNamespace(nc=client, js=js, ready=nothing, ensure_topology=nothing))


def started_calls(js: FakeJetStream) -> StartedCalls:
    return StartedCalls(js, nothing, nothing)


@pytest.mark.parametrize("in_process", IN_PROCESS)
async def test_a_message_that_is_in_process_is_not_taken_for_one_that_is_there(in_process: Exception) -> None:
    with pytest.raises(BusUnavailableError):
        await Bus(connection_to(FakeJetStream(in_process))).publish("s.1", Envelope(), msg_id="1")


@pytest.mark.parametrize("in_process", IN_PROCESS)
async def test_what_must_be_stored_is_published_until_the_server_can_tell(in_process: Exception) -> None:
    js = FakeJetStream(TIMEOUT, in_process, in_process, STORED)
    outcome = await Bus(connection_to(js)).publish_until_stored("s.1", Envelope(), trace=None)
    assert outcome is PublishOutcome.STORED
    assert js.answers == []


async def test_a_publish_whose_answer_got_lost_is_found_to_be_there() -> None:
    js = FakeJetStream(TIMEOUT, SUBJECT_IN_PROCESS, WRONG_LAST)
    outcome = await Bus(connection_to(js)).publish_until_stored("s.1", Envelope(), trace=None)
    assert outcome is PublishOutcome.ALREADY_THERE


@pytest.mark.parametrize("in_process", IN_PROCESS)
async def test_a_claim_that_is_in_process_is_not_read_yet(in_process: Exception) -> None:
    js = FakeJetStream(TIMEOUT, in_process, STORED)
    assert await started_calls(js).claim("default/c1") is Claim.GRANTED
    assert js.reads == 0


async def test_a_claim_whose_answer_got_lost_is_known_by_its_token_once_it_is_there() -> None:
    js = FakeJetStream(TIMEOUT, SUBJECT_IN_PROCESS, WRONG_LAST)
    js.held = b"me"
    assert await started_calls(js).claim("default/c1", holder="me") is Claim.GRANTED
    assert js.reads == 1


@pytest.mark.parametrize("in_process", IN_PROCESS)
async def test_nobody_can_tell_of_a_claim_that_stays_in_process(in_process: Exception) -> None:
    js = FakeJetStream(in_process, in_process, in_process)
    with pytest.raises(BusUnavailableError):
        await started_calls(js).claim("default/c1")
    assert js.reads == 0


async def test_an_entry_that_is_just_being_written_is_to_be_read_again() -> None:
    assert await SharedEntries(connection_to(FakeJetStream(SUBJECT_IN_PROCESS))).write("a", b"1", 3) is None


async def test_too_many_writes_are_not_taken_for_somebody_who_was_faster() -> None:
    with pytest.raises(BusUnavailableError):
        await SharedEntries(connection_to(FakeJetStream(TOO_MANY))).write("a", b"1", 3)


FULL = refusal(400, 10077, "maximum messages exceeded")
REFUSED = refusal(400, 10052, "no such message")


def bus_with_claims(js: FakeJetStream) -> tuple[Bus, FakeClaims]:
    bus, claims = Bus(connection_to(js)), FakeClaims()
    bus.claims = cast("ClaimStore", claims)
    return bus, claims


async def test_a_large_payload_is_uploaded_once_however_often_it_is_published() -> None:
    js = FakeJetStream(TIMEOUT, FULL, SUBJECT_IN_PROCESS, STORED)
    bus, claims = bus_with_claims(js)
    await bus.publish_until_stored("s.1", Big(), trace=None)
    assert js.claims == ["claim-1"] * 4
    assert (claims.puts, claims.held) == (1, {"claim-1"})


async def test_a_payload_that_got_lost_between_two_attempts_is_uploaded_again() -> None:
    bus, claims = bus_with_claims(js := LosingJetStream(TIMEOUT, STORED))
    js.claim_store = claims
    await bus.publish_until_stored("s.1", Big(), trace=None)
    assert js.claims == ["claim-1", "claim-2"]
    assert claims.held == {"claim-2"}


class LosingJetStream(FakeJetStream):
    """Loses its storage with the answer to the first publish."""

    claim_store: FakeClaims

    async def publish(self, subject: str, payload: bytes, headers: Any = None) -> Any:
        if len(self.answers) == 2:
            self.claim_store.held.clear()
        return await super().publish(subject, payload, headers)


@pytest.mark.parametrize(("answer", "kind"), [(FULL, BusFullError), (REFUSED, PublishRefusedError)])
async def test_the_payload_of_what_was_not_stored_is_deleted(answer: Exception, kind: type[Exception]) -> None:
    bus, claims = bus_with_claims(FakeJetStream(answer))
    with pytest.raises(kind):
        await bus.publish("s.1", Big(), msg_id=None)
    assert (claims.puts, claims.held) == (1, set())


async def test_the_payload_of_what_is_refused_for_good_is_deleted() -> None:
    bus, claims = bus_with_claims(FakeJetStream(FULL, REFUSED))
    with pytest.raises(PublishRefusedError):
        await bus.publish_until_stored("s.1", Big(), trace=None)
    assert (claims.puts, claims.held) == (1, set())


@pytest.mark.parametrize("second", [WRONG_LAST, REFUSED])
async def test_a_payload_is_kept_while_a_message_may_point_at_it(second: Exception) -> None:
    bus, claims = bus_with_claims(FakeJetStream(TIMEOUT, second))
    try:
        await bus.publish_until_stored("s.1", Big(), trace=None)
    except PublishRefusedError:
        assert second is REFUSED
    assert claims.held == {"claim-1"}


async def test_the_payload_of_a_unit_that_is_there_is_deleted() -> None:
    bus, claims = bus_with_claims(FakeJetStream(WRONG_LAST))
    assert await bus.publish_until_stored("s.1", Big(), trace=None) is PublishOutcome.ALREADY_THERE
    assert claims.held == set()
