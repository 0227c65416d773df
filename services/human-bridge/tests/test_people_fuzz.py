"""Arbitrary requests, calls, channels and answers.

A request is always asked, dropped or tried again; what comes from outside is an answer, a refusal or nothing.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, TypeVar, cast
from urllib.parse import urlencode

import orjson
import pytest
from asking_testbed import PolledRoad, World
from hypothesis import given
from hypothesis import strategies as st

from kubechain_common.api.v1alpha1 import ContactChannel, Task, TaskRunToolCall
from kubechain_common.api.v1alpha1.meta import Resource
from kubechain_common.api.v1alpha1.taskruntoolcall import TaskRunToolCallStatus
from kubechain_common.messages import Envelope
from kubechain_common.messages.human import AnswerCheck, HumanRequest, HumanResult
from kubechain_common.messages.topology import answer_check_subject, human_request_subject, human_result_subject
from kubechain_common.messaging import codec
from kubechain_common.messaging.delivery import Delivery, Poison
from kubechain_common.messaging.errors import PoisonMessage, RetryLater
from kubechain_common.testing.arbitrary import JSON, NAMES, fuzz, models, resources
from kubechain_human_bridge.answers.answers import Answers
from kubechain_human_bridge.answers.checks import AnswerChecker
from kubechain_human_bridge.answers.lookup import AnswerLookup
from kubechain_human_bridge.channels.base import Ask, Channel, Kind
from kubechain_human_bridge.channels.humanlayer_wire import encode_request, read_answer
from kubechain_human_bridge.channels.mail import build_mail
from kubechain_human_bridge.channels.slack_blocks import INPUT_ACTION, INPUT_BLOCK, build_request
from kubechain_human_bridge.web.humanlayer_hook import find_call_id
from kubechain_human_bridge.web.slack_interaction import Click, Form, InteractionError, parse_interaction

R = TypeVar("R", bound=Resource)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CALL = {"namespace": "default", "name": "call", "uid": "call-uid"}
CHANNEL = {"namespace": "default", "name": "channel", "uid": "channel-uid"}
OURS = {"v": st.just(1), "call": st.just(CALL), "channel": st.just(CHANNEL)}

# Models write halves of characters as escapes, which are text once the JSON is read.
written_text = st.text(st.characters(), max_size=12) | st.sampled_from(["\ud800", "a\udfffb", "\r\nTo: all", "\x00"])
arguments = (
    st.text(max_size=12)
    | JSON.map(json.dumps)
    | st.fixed_dictionaries({"message": written_text}, optional={"url": written_text}).map(json.dumps)
)
overrides = {"name": NAMES, "arguments": arguments}
calls = resources(TaskRunToolCall, overrides)
waiting_calls = calls.map(
    lambda call: call.model_copy(update={"status": TaskRunToolCallStatus(status="AwaitingHumanApproval")})
)
tasks = resources(Task, {"name": NAMES})
channels = resources(ContactChannel, {"name": NAMES, "key": st.just("k")})
garbage = st.binary(max_size=40) | JSON.map(lambda value: json.dumps(value).encode())
moments = st.integers(0, 7 * 10**9).map(lambda second: datetime.fromtimestamp(second, UTC).isoformat())
requests = models(
    HumanRequest, {**OURS, "externalCallId": st.just("ec-1"), "runId": st.just("kc-1"), "requestedAt": moments}
)
checks = models(AnswerCheck, {**OURS, "askedAt": moments})


def adopt(obj: R, ref: Mapping[str, str]) -> R:
    return obj.model_copy(update={"metadata": obj.metadata.model_copy(update=ref)})


class Writer(PolledRoad):
    """Writes each request down in all the ways that there are, and never finds an answer."""

    def __init__(self, world: World, channel: ContactChannel) -> None:
        super().__init__(world)
        self.channel = channel

    async def send(self, ask: Ask) -> str:
        build_mail(ask, sender="kubechain@example.com", recipient="a@example.com", subject=None).as_bytes()
        json.loads(encode_request(self.channel.spec, ask))
        assert json.loads(orjson.dumps(build_request(ask, "token")))
        return await super().send(ask)


class Fuzzed(World):
    """A request that has to wait is given back at once, and the bus takes what can be encoded."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.stopping.set()

    def build(self, channel: ContactChannel, secrets: Mapping[str, str]) -> Channel:
        return Writer(self, channel)

    async def publish(self, subject: str, message: Envelope, **_: object) -> None:
        await super().publish(subject, codec.decode(type(message), codec.encode(message)))

    async def publish_until_stored(self, subject: str, message: Envelope, **_: object) -> None:
        await self.publish(subject, message)

    @property
    def reports(self) -> list[tuple[str, HumanResult]]:
        return [(subject, message) for subject, message in self.published if isinstance(message, HumanResult)]


@fuzz
@given(garbage)
async def test_what_is_no_request_is_told_of(data: bytes) -> None:
    world = Fuzzed()
    subject = human_request_subject("channel-uid", "default", "call-uid")
    with pytest.raises(PoisonMessage) as poison:
        codec.decode(HumanRequest, data)
    await world.worker.handle_poison(Poison(subject, data, poison.value.reason, 1, None))
    assert [report.outcome for _, report in world.reports] == ["Retrying"]


@fuzz
@given(requests, calls | waiting_calls, st.none() | tasks, channels)
async def test_every_request_is_asked_dropped_or_tried_again(
    request: HumanRequest, call: TaskRunToolCall, task: Task | None, channel: ContactChannel
) -> None:
    world = Fuzzed(call=adopt(call, CALL), task=task, channel=adopt(channel, CHANNEL))
    delivery = Delivery(request, 1, None, human_request_subject("channel-uid", "default", "call-uid"), NOW, 1)
    try:
        await world.worker.handle_request(delivery, asyncio.Semaphore(1))
    except RetryLater:
        assert not [report for _, report in world.reports if "unexpectedly" in report.message]
    else:
        for where, report in world.reports:  # none of a person who was asked before
            assert where == human_result_subject("default", "call-uid")
            assert report.outcome in ("Sent", "Dropped")


@fuzz
@given(checks, calls, st.none() | channels)
async def test_every_check_is_settled_or_comes_again(
    check: AnswerCheck, call: TaskRunToolCall, channel: ContactChannel | None
) -> None:
    world = Fuzzed(call=adopt(call, CALL), channel=adopt(channel, CHANNEL) if channel is not None else None)
    waiting = SimpleNamespace(find=lambda ref: call, count=lambda: 1)
    lookup = AnswerLookup(world.access, Answers(cast("Any", world)))
    checker = AnswerChecker(cast("Any", world), waiting, world.access, lookup)
    subject = answer_check_subject("channel-uid", "default", "call-uid")
    with pytest.raises(RetryLater) as later:
        await checker.handle_check(Delivery(check, 1, None, subject, NOW, 1))
    assert 0 < later.value.delay < 3600


@fuzz
@given(written_text | JSON.map(json.dumps), st.sampled_from(["block_actions", "view_submission", "shortcut"]), JSON)
def test_every_post_of_slack_is_an_interaction_or_refused(text: str, kind: str, value: Any) -> None:
    payloads: list[Any] = [
        value,
        {"type": kind, "user": value, "actions": value},
        {"type": kind, "user": {"id": "U1", "name": value}, "actions": [value, value], "view": value},
        {"type": kind, "user": {"id": text}, "actions": [{"value": text, "action_id": value}], "container": value},
        {
            "type": kind,
            "user": {"id": "U1"},
            "view": {
                "private_metadata": json.dumps(["token", "C1", "1"]),
                "state": {"values": {INPUT_BLOCK: {INPUT_ACTION: {"value": value}}}},
            },
        },
    ]
    bodies = [text.encode(errors="replace"), *(urlencode({"payload": json.dumps(p)}).encode() for p in payloads)]
    for body in bodies:
        try:
            parsed = parse_interaction(body)
        except InteractionError:
            continue
        assert parsed is None or isinstance(parsed, Click | Form)


@fuzz
@given(garbage, JSON, st.sampled_from(["Approval", "Contact"]), written_text)
def test_every_answer_of_the_api_is_one_that_can_be_stored_or_none(
    body: bytes, value: Any, kind: Kind, text: str
) -> None:
    call_id = find_call_id(body)
    assert call_id is None or 0 < len(call_id) <= 64
    status = {"approved": True, "responded_at": "now", "comment": text, "response": text, "user_info": value}
    for answer in (value, {"status": value}, {"status": status}, {"status": {**status, "user_info": {"email": text}}}):
        given_answer = read_answer(kind, answer, "somebody")
        if given_answer is not None:
            assert given_answer.by
            json.dumps([given_answer.by, given_answer.comment, given_answer.response], ensure_ascii=False).encode()
