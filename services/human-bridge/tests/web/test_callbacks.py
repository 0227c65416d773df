"""Answers by webhook callback, and every way in which one is refused."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs
from web_testbed import HOOK_SECRET, LINK_KEY, World

from kubechain_common.messages import ObjectRef
from kubechain_common.runtime.clock import now
from kubechain_common.testing.arbitrary import JSON, fuzz
from kubechain_human_bridge.channels.call_token import CallToken, write_call_token
from kubechain_human_bridge.channels.standard_webhooks import read_key, sign
from kubechain_human_bridge.web.callbacks import CallbackError, parse_callback

_CHANNEL_EVENT = ("ContactChannel/default/hook", "Warning", "DecisionRefused")


def _token(call: ObjectRef, *, key: str = LINK_KEY, channel: str = "uid-default-hook") -> str:
    return write_call_token(key, CallToken(call, channel, "Approval"))


async def _call_back(
    world: World,
    body: dict[str, Any] | bytes,
    *,
    path: str = "default/hook",
    secret: str = HOOK_SECRET,
    at: float | None = None,
) -> tuple[int, str]:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = sign(read_key(secret), "msg_1", int(time.time() if at is None else at), raw)
    async with world.session.post(f"{world.url}/callbacks/{path}", data=raw, headers=headers) as response:
        answer = await response.json()
        assert answer["accepted"] is (response.status == 200)
        return response.status, str(answer["message"])


async def test_approves(world: World) -> None:
    call = world.add_call()
    body = {"token": _token(call), "approved": True, "by": "alice", "arguments": '{"url":"x"}'}
    assert await _call_back(world, body) == (200, "Approved by webhook:alice")
    decision = world.read(call).spec.decision
    assert decision is not None
    assert (decision.approved, decision.by, decision.via) == (True, "webhook:alice", "webhook")
    assert decision.arguments == '{"url":"x"}'


async def test_arguments_may_be_an_object(world: World) -> None:
    call = world.add_call()
    body = {"token": _token(call), "approved": True, "arguments": {"url": "é"}}
    assert (await _call_back(world, body))[0] == 200
    decision = world.read(call).spec.decision
    assert decision is not None
    assert decision.arguments == '{"url": "é"}'


@pytest.mark.parametrize(("arguments", "why"), [("{bad", "not valid JSON"), ("[1]", "JSON object"), ("NaN", "JSON")])
async def test_a_slip_in_the_arguments_does_not_use_up_the_answer(world: World, arguments: str, why: str) -> None:
    call = world.add_call()
    status, said = await _call_back(world, {"token": _token(call), "approved": True, "arguments": arguments})
    assert (status, why in said) == (422, True), said
    assert world.read(call).spec.decision is None


async def test_an_answer_of_the_wrong_kind_says_what_is_waited_for(world: World) -> None:
    call, question = world.add_call(), world.add_call("asked", toolType="HumanContact")
    said = "The call waits for approval: it is approved or rejected."
    assert await _call_back(world, {"token": _token(call), "response": "hi"}) == (409, said)
    said = "The call asks a question: it takes an answer, and no decision."
    assert await _call_back(world, {"token": _token(question), "approved": True}) == (409, said)


async def test_rejects_in_the_name_of_the_channel_where_nobody_is_named(world: World) -> None:
    call = world.add_call()
    body = {"token": _token(call), "approved": False, "comment": "no"}
    assert await _call_back(world, body) == (200, "Rejected by webhook:hook")


async def test_answers_a_question(world: World) -> None:
    call = world.add_call(toolType="HumanContact", arguments='{"message":"Which colour?"}')
    assert (await _call_back(world, {"token": _token(call), "response": "Blue", "by": "bob"}))[0] == 200
    response = world.read(call).spec.response
    assert response is not None
    assert (response.message, response.by, response.via) == ("Blue", "webhook:bob", "webhook")


async def test_a_replay_is_told_who_decided_and_when(world: World) -> None:
    call = world.add_call()
    body = {"token": _token(call), "approved": True, "by": "alice"}
    await _call_back(world, body)
    before = world.read(call)
    for again in (body, {**body, "approved": False, "by": "mallory"}):
        status, said = await _call_back(world, again)
        assert status == 409
        assert said.startswith("Approved by webhook:alice at ")
    assert world.read(call) == before
    assert world.recorder.events[-1][0] == f"TaskRunToolCall/default/{call.name}"
    assert "Refused an answer by webhook:mallory through webhook" in world.recorder.events[-1][3]


@pytest.mark.parametrize("seconds", [-301, 330])
async def test_a_stale_signature_is_refused(world: World, seconds: float) -> None:
    call = world.add_call()
    at = time.time() + seconds
    assert (await _call_back(world, {"token": _token(call), "approved": True}, at=at))[0] == 401
    _check_refused(world, call, "five minutes")


async def test_a_wrong_signature_is_refused(world: World) -> None:
    call = world.add_call()
    assert (await _call_back(world, {"token": _token(call), "approved": True}, secret="wrong"))[0] == 401
    _check_refused(world, call, "the signature does not match")


async def test_no_signature_is_refused(world: World) -> None:
    call = world.add_call()
    body = {"token": _token(call), "approved": True}
    async with world.session.post(f"{world.url}/callbacks/default/hook", json=body) as response:
        assert response.status == 401
    _check_refused(world, call, "are required")


@pytest.mark.parametrize("key", ["wrong", HOOK_SECRET, ""])
async def test_a_token_that_the_channel_did_not_make_is_refused(world: World, key: str) -> None:
    """Nor does one count that the program wrote for itself, though it signs well."""
    call = world.add_call()
    world.secrets.key = key and LINK_KEY
    for token in ("nonsense", _token(call, key=key)):
        assert (await _call_back(world, {"token": token, "approved": True}))[0] == 403
    _check_refused(world, call, "the token is ")


async def test_a_call_of_another_channel_is_refused_even_with_the_same_secret(world: World) -> None:
    call = world.add_call()
    token = _token(call, channel="uid-of-an-earlier-hook")
    assert (await _call_back(world, {"token": token, "approved": True}))[0] == 403
    _check_refused(world, call, "another channel")


async def test_a_namesake_channel_in_another_namespace_decides_nothing_here(world: World) -> None:
    call, namesake = world.add_call(), world.add_call(namespace="other")
    status, _ = await _call_back(world, {"token": _token(call), "approved": True}, path="other/hook")
    assert status == 403
    assert world.recorder.events[-1][0] == "ContactChannel/other/hook"
    # A token that names this channel and a call elsewhere can not come from us; it is refused all the same.
    token = _token(namesake, channel="uid-default-hook")
    assert (await _call_back(world, {"token": token, "approved": True}))[0] == 403
    assert not world.answered(call)
    assert not world.answered(namesake)


@pytest.mark.parametrize("path", ["default/nobody", "default/team", "nowhere/hook"])
async def test_a_channel_that_is_no_webhook_takes_nothing(world: World, path: str) -> None:
    call = world.add_call()
    assert (await _call_back(world, {"token": _token(call), "approved": True}, path=path))[0] == 404
    assert not world.answered(call)


async def test_our_own_request_sent_back_to_us_decides_nothing(world: World) -> None:
    call = world.add_call(arguments='{"approved": true}')
    body = {"type": "approval.requested", "token": _token(call), "arguments": '{"approved": true}', "message": ""}
    status, said = await _call_back(world, body)
    assert (status, "either approved" in said) == (422, True)
    assert not world.answered(call)


@pytest.mark.parametrize(
    "body", [b"", b"nonsense", b"[]", {"approved": True}, {"token": 1}, {"approved": "maybe"}, {"response": ""}]
)
async def test_a_body_that_is_no_answer_is_told_what_is_wrong(world: World, body: dict[str, Any] | bytes) -> None:
    call = world.add_call()
    complete = {"token": _token(call), **body} if isinstance(body, dict) and "approved" not in body else body
    status, said = await _call_back(world, complete)
    assert status == 422
    assert said
    assert not world.answered(call)


async def test_both_answers_at_once_are_none(world: World) -> None:
    call = world.add_call()
    assert (await _call_back(world, {"token": _token(call), "approved": True, "response": "yes"}))[0] == 422
    assert not world.answered(call)


async def test_an_answer_of_the_wrong_kind_is_refused(world: World) -> None:
    call = world.add_call()
    assert (await _call_back(world, {"token": _token(call), "response": "yes"}))[0] == 409
    assert not world.answered(call)


async def test_while_the_cluster_is_away_the_program_is_asked_to_try_again(world: World) -> None:
    call = world.add_call()
    world.lose_cluster()
    assert (await _call_back(world, {"token": _token(call), "approved": True}))[0] == 503


async def test_until_the_key_is_known_nobody_is_turned_away(world: World) -> None:
    call = world.add_call()
    body = {"token": _token(call), "approved": True}
    world.secrets.known = False
    status, said = await _call_back(world, body)
    assert (status, "try again" in said) == (503, True)
    assert world.recorder.events == []
    world.secrets.known = True
    assert (await _call_back(world, body))[0] == 200


async def test_a_right_that_is_missing_is_no_outage(world: World) -> None:
    call = world.add_call()
    world.take_right()
    raw = json.dumps({"token": _token(call), "approved": True}).encode()
    headers = sign(read_key(HOOK_SECRET), "msg_1", int(time.time()), raw)
    with capture_logs() as lines:
        async with world.session.post(f"{world.url}/callbacks/default/hook", data=raw, headers=headers) as response:
            assert (response.status, "Retry-After" in response.headers) == (500, False)
            assert "lacks a right" in await response.text()
    assert [line["error"] for line in lines] == ["human-bridge may not patch taskruntoolcalls"]


async def test_an_answer_without_a_word_is_not_said_to_have_changed_nothing(world: World) -> None:
    call = world.add_call()
    world.lose_word()
    body = {"token": _token(call), "approved": True}
    status, said = await _call_back(world, body)
    assert (status, "Nothing was changed" in said) == (503, False)
    assert (await _call_back(world, body))[0] == 409


@fuzz
@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_body_is_read_or_refused(body: bytes) -> None:
    with pytest.raises(CallbackError):
        parse_callback(body).build_answer("hook", now())


def _check_refused(world: World, call: ObjectRef, why: str) -> None:
    assert not world.answered(call)
    assert world.recorder.events[-1][:3] == _CHANNEL_EVENT
    assert why in world.recorder.events[-1][3]
    assert HOOK_SECRET not in str(world.recorder.events)
