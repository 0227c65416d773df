"""What is published when the server answers as one of several does, or not at all."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import nats.errors
import nats.js.errors
import pytest

from kubechain_common.messages import Envelope
from kubechain_common.messaging.bus import Bus, PublishOutcome
from kubechain_common.messaging.connection import Connection
from kubechain_common.messaging.errors import BusUnavailableError
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
        self.held = b""
        self.reads = 0

    async def publish(self, subject: str, payload: bytes, headers: Any = None) -> Any:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def get_last_msg(self, stream: str, subject: str) -> Any:
        self.reads += 1
        return SimpleNamespace(data=self.held, seq=7)


async def nothing(*_: object) -> None: ...


def connection_to(js: FakeJetStream) -> Connection:
    client = SimpleNamespace(max_payload=1 << 20)
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
