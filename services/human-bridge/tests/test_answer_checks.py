from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeVar

import pytest

from kubechain_common.api.v1alpha1 import ContactChannel, MCPServer, TaskRunToolCall
from kubechain_common.api.v1alpha1.meta import Resource
from kubechain_common.api.v1alpha1.taskruntoolcall import Decision, HumanResponse
from kubechain_common.kube.errors import NotFoundError, UnavailableError
from kubechain_common.messages import Envelope, ObjectRef
from kubechain_common.messages.human import AnswerCheck
from kubechain_common.messages.topology import answer_check_subject
from kubechain_common.messaging.delivery import Delivery
from kubechain_common.messaging.errors import RetryLater
from kubechain_common.runtime.clock import now
from kubechain_common.testing.builders import NOW, build_call, build_mcp_server
from kubechain_human_bridge.answers.answers import Answers, Outcome, Verdict
from kubechain_human_bridge.answers.checks import AnswerChecker, check_delay
from kubechain_human_bridge.answers.lookup import AnswerLookup
from kubechain_human_bridge.answers.schedule import AnswerSchedule
from kubechain_human_bridge.channels.base import Ask, Channel, Given, Kind, OwnChannel
from kubechain_human_bridge.channels.errors import ChannelRefusedError, ChannelUnavailableError
from kubechain_human_bridge.contactchannels.access import ChannelAccess
from kubechain_human_bridge.contactchannels.call_channel import ChannelFinder

R = TypeVar("R", bound=Resource)

ASKED = {"type": "HumanAsked", "status": "True", "reason": "r", "lastTransitionTime": "2026-01-01T00:00:00Z"}
WAITING = {
    "phase": "Pending",
    "status": "AwaitingHumanApproval",
    "externalCallID": "ec-1",
    "conditions": [ASKED],
}


def build_channel(name: str = "c", **spec: Any) -> ContactChannel:
    full = {
        "type": "email",
        "apiKeyFrom": {"secretKeyRef": {"name": "s", "key": "k"}},
        "email": {"address": "a@example.com"},
        **spec,
    }
    metadata = {"name": name, "namespace": "default", "uid": f"uid-{name}", "generation": 1}
    return ContactChannel.model_validate({"metadata": metadata, "spec": full})


class Road(OwnChannel):
    def __init__(self, world: World) -> None:
        self.world = world

    async def validate(self) -> str:
        return "fine"

    async def send(self, ask: Ask) -> str:
        raise AssertionError("looking for an answer asks nobody")

    async def find_answer(self, external_call_id: str, kind: Kind) -> Given | None:
        self.world.looks.append((external_call_id, kind))
        if isinstance(self.world.given, Exception):
            raise self.world.given
        return self.world.given

    async def aclose(self) -> None:
        pass


class Recorder(Answers):
    """Takes the answers in place of the API server."""

    def __init__(self, world: World) -> None:
        self.world = world

    async def decide(self, ref: ObjectRef, decision: Decision) -> Verdict:
        self.world.answers.append(decision)
        return self.world.verdict

    async def respond(self, ref: ObjectRef, response: HumanResponse) -> Verdict:
        self.world.answers.append(response)
        return self.world.verdict


@dataclass
class World:
    """What the checker and the schedule see."""

    calls: list[TaskRunToolCall] = field(default_factory=lambda: [build_call(status=WAITING)])
    seen: bool = True
    channels: list[ContactChannel] = field(default_factory=lambda: [build_channel()])
    server: MCPServer | None = field(default_factory=lambda: build_mcp_server(approvalContactChannel={"name": "c"}))
    given: Given | Exception | None = None
    verdict: Verdict = field(default_factory=lambda: Verdict(Outcome.ACCEPTED, "Approved"))
    looks: list[tuple[str, Kind]] = field(default_factory=list)
    answers: list[Decision | HumanResponse] = field(default_factory=list)
    there: list[str] = field(default_factory=list)
    published: list[tuple[str, AnswerCheck]] = field(default_factory=list)
    reads: int = 0

    def __post_init__(self) -> None:
        self.access = ChannelAccess(_Channels(self), self, lambda channel, secrets: self.build())
        self.checker = AnswerChecker(self, self, self.access, AnswerLookup(self.access, Recorder(self)))
        self.schedule = AnswerSchedule(self, self, self, self.access)

    def build(self) -> Channel:
        return Road(self)

    async def read(self, namespace: str, name: str) -> Mapping[str, str] | None:
        return {"k": "1"}

    def waiting(self) -> list[TaskRunToolCall]:
        return self.calls

    def count(self) -> int:
        return len(self.calls)

    def find(self, ref: ObjectRef) -> TaskRunToolCall | None:
        found = [call for call in self.calls if call.uid == ref.uid and call.awaits_human]
        return found[0] if found and self.seen else None

    async def get(self, kind: type[R], namespace: str, name: str) -> R:
        self.reads += 1
        candidates: list[Resource] = [*self.calls, *([self.server] if self.server else [])]
        for candidate in candidates:
            if isinstance(candidate, kind) and candidate.key == (namespace, name):
                return candidate
        raise NotFoundError(name)

    async def find_subjects(self, stream: str, pattern: str) -> list[str]:
        assert pattern == "kubechain.answer.check.*.*.*"
        return self.there

    async def publish(self, subject: str, message: Envelope, *, msg_id: None) -> None:
        assert isinstance(message, AnswerCheck)
        self.published.append((subject, message))

    async def check(self, *, age: float = 60, kind: Kind = "Approval") -> float | None:
        """Handles one check; the seconds until the next, None when it is settled."""
        message = AnswerCheck(
            call=ObjectRef.of(build_call()),
            channel=ObjectRef.of(build_channel()),
            kind=kind,
            external_call_id="ec-1",
            asked_at=now() - timedelta(seconds=age),
        )
        try:
            await self.checker.handle_check(Delivery(message, 1, None, "s", NOW, 1))
        except RetryLater as signal:
            return signal.delay
        return None


@dataclass
class _Channels:
    world: World

    def get(self, namespace: str, name: str) -> ContactChannel | None:
        return next((c for c in self.world.channels if c.key == (namespace, name)), None)


async def test_a_new_request_is_left_alone_for_a_while() -> None:
    world = World()
    delay = await world.check(age=1)
    assert delay == pytest.approx(4, abs=0.2)
    assert world.looks == []


async def test_without_an_answer_the_check_is_given_back() -> None:
    world = World()
    delay = await world.check(age=600)
    assert delay == pytest.approx(60, rel=0.11)
    assert world.looks == [("ec-1", "Approval")]
    assert world.reads == 0


async def test_an_approval_is_written_into_the_call() -> None:
    world = World(given=Given(by="a@example.com", approved=True))
    assert await world.check() is None
    decision = world.answers[0]
    assert isinstance(decision, Decision)
    assert (decision.approved, decision.comment) == (True, None)
    assert (decision.by, decision.via) == ("humanlayer:a@example.com", "humanlayer")
    assert decision.at is not None


async def test_a_rejection_and_a_response_carry_their_words() -> None:
    world = World(given=Given(by="x", approved=False, comment="No"))
    await world.check()
    world.given = Given(by="x", response="1977")
    await world.check(kind="Contact")
    rejection, response = world.answers
    assert isinstance(rejection, Decision)
    assert (rejection.approved, rejection.comment) == (False, "No")
    assert isinstance(response, HumanResponse)
    assert response.message == "1977"


@pytest.mark.parametrize("outcome", [Outcome.TOO_LATE, Outcome.GONE, Outcome.NOT_ASKED])
async def test_an_answer_that_came_too_late_settles_the_check(outcome: Outcome) -> None:
    world = World(given=Given(by="x", approved=True), verdict=Verdict(outcome, "late"))
    assert await world.check() is None


async def test_an_answer_that_is_not_taken_is_tried_again_rarely() -> None:
    world = World(given=Given(by="x", approved=True), verdict=Verdict(Outcome.INVALID, "a policy says no"))
    assert await world.check() == pytest.approx(120, rel=0.11)


async def test_nobody_is_asked_for_an_answer_that_is_not_needed() -> None:
    gone = World(calls=[])
    decided = World(calls=[build_call(status=WAITING, decision={"approved": True})])
    assert await gone.check() is None
    assert await decided.check() is None
    assert gone.looks == decided.looks == []


async def test_a_call_that_our_view_does_not_show_yet_is_looked_after() -> None:
    world = World(seen=False)
    assert await world.check() is not None
    assert world.looks == [("ec-1", "Approval")]


@pytest.mark.parametrize(
    ("error", "delay"),
    [
        (ChannelUnavailableError("away"), 10),
        (ChannelUnavailableError("wait", retry_after=300), 300),
        (ChannelRefusedError("invalid HumanLayer API key"), 120),
        (UnavailableError("no api server"), 6),
    ],
)
async def test_trouble_is_waited_out(error: Exception, delay: float) -> None:
    assert await World(given=error).check() == pytest.approx(delay, rel=0.12)


async def test_a_channel_that_is_not_there_is_waited_for() -> None:
    assert await World(channels=[]).check() == pytest.approx(30, rel=0.11)


@pytest.mark.parametrize(
    ("age", "waiting", "delay"),
    [(0, 1, 5), (50, 1, 5), (300, 1, 30), (1e7, 1, 120), (60, 50, 6), (60, 1000, 100), (60, 100_000, 120), (-60, 1, 5)],
)
def test_the_delay_grows_with_age_and_with_the_crowd(age: float, waiting: int, delay: float) -> None:
    assert check_delay(NOW, NOW + timedelta(seconds=age), waiting) == delay


# --- what the bus lost ---


async def test_missing_checks_are_published() -> None:
    world = World()
    assert await world.schedule.publish_missing() == 1
    subject, check = world.published[0]
    call = world.calls[0]
    assert subject == answer_check_subject("uid-c", "default", call.uid)
    assert (check.call, check.kind, check.external_call_id) == (ObjectRef.of(call), "Approval", "ec-1")
    assert check.asked_at == datetime.fromisoformat("2026-01-01T00:00:00+00:00")


async def test_what_is_there_is_not_published_again() -> None:
    world = World()
    world.there = [answer_check_subject("uid-of-an-earlier-channel", "default", world.calls[0].uid)]
    assert await world.schedule.publish_missing() == 0


async def test_a_namesake_in_another_namespace_is_no_check_of_ours() -> None:
    world = World()
    world.there = [answer_check_subject("uid-c", "other", world.calls[0].uid)]
    assert await world.schedule.publish_missing() == 1


async def test_only_requests_that_arrived_are_checked() -> None:
    world = World(calls=[build_call(status={**WAITING, "conditions": []})])
    assert await world.schedule.publish_missing() == 0


async def test_channels_with_a_way_back_are_not_checked() -> None:
    inbox = ContactChannel.model_validate({"metadata": build_channel().metadata, "spec": {"type": "inbox"}})
    assert await World(channels=[inbox]).schedule.publish_missing() == 0
    assert await World(channels=[]).schedule.publish_missing() == 0
    assert await World(server=None).schedule.publish_missing() == 0


async def test_one_look_reads_each_server_once() -> None:
    calls = [build_call(f"call-{n}", status=WAITING) for n in range(5)]
    world = World(calls=calls)
    assert await world.schedule.publish_missing() == 5
    assert world.reads == 1


async def test_a_question_names_its_channel_itself() -> None:
    status = {**WAITING, "status": "AwaitingHumanInput"}
    world = World(calls=[build_call(status=status, toolType="HumanContact", target={"name": "c"})], server=None)
    assert await world.schedule.publish_missing() == 1
    assert world.published[0][1].kind == "Contact"
    assert await ChannelFinder(world).find_name(build_call(status=status, target=None)) is None
