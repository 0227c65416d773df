"""Answers by Slack, as its servers deliver them, and every way in which one is refused."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs
from web_testbed import LINK_KEY, World

from kubechain_common.messages import ObjectRef
from kubechain_common.testing.arbitrary import JSON, fuzz
from kubechain_common.testing.slack_server import Interaction
from kubechain_human_bridge.channels.base import Ask
from kubechain_human_bridge.channels.call_token import CallTokens
from kubechain_human_bridge.channels.slack import SlackChannel
from kubechain_human_bridge.channels.slack_blocks import ACTION_ANSWER, ACTION_APPROVE, ACTION_REJECT
from kubechain_human_bridge.channels.standard_webhooks import SignatureError
from kubechain_human_bridge.web.slack_interaction import (
    InteractionError,
    Place,
    is_slack_url,
    parse_interaction,
    verify_slack,
)

_CHANNEL_EVENT = ("ContactChannel/default/team", "Warning", "DecisionRefused")


async def _ask(world: World, call: ObjectRef, *, namespace: str = "default", uid: str = "") -> dict[str, Any]:
    """Asks through the Slack channel of this namespace; the message as Slack has it."""
    found = world.channels.found[namespace, "team"]
    ref = ObjectRef(namespace=namespace, name="team", uid=uid or found.channel.uid)
    channel = SlackChannel(found.channel.spec, found.secrets, world.session, ref, CallTokens(lambda: LINK_KEY))
    spec = world.read(call).spec
    question = spec.tool_type == "HumanContact"
    await channel.send(
        Ask(
            call=call,
            kind="Contact" if question else "Approval",
            external_call_id="ec-1",
            run_id="kc-1",
            task="approved",
            agent="my-assistant",
            tool=spec.tool_ref.name,
            arguments=spec.arguments,
            message="Which colour?" if question else "",
            user_message="",
            requested_at=datetime.now(UTC),
        )
    )
    return world.slack.messages[-1]


async def _deliver(world: World, interaction: Interaction, *, path: str = "default/team") -> tuple[int, str]:
    return await world.slack.deliver(f"{world.url}/slack/{path}/interactions", interaction)


def _allow(world: World, *users: str) -> None:
    slack = world.channels.found["default", "team"].channel.spec.slack
    assert slack is not None
    slack.allowed_responder_ids = list(users)


async def test_a_click_approves_and_the_message_shows_who(world: World) -> None:
    _allow(world, "U1")
    call = world.add_call()
    message = await _ask(world, call)
    assert await _deliver(world, world.slack.build_click(message, ACTION_APPROVE, "U1")) == (200, "")
    decision = world.read(call).spec.decision
    assert decision is not None
    assert (decision.approved, decision.by, decision.via) == (True, "slack:U1 (alice)", "slack")
    [update] = world.slack.updates
    assert (update["channel"], update["ts"]) == (message["channel"], message["ts"])
    shown = json.dumps(update["blocks"])
    assert "Approved by slack:U1 (alice) at " in shown
    assert "https://swapi.dev/api/people/2" in shown
    assert "actions" not in shown
    assert world.recorder.events == []


async def test_rejecting_asks_for_a_comment_first(world: World) -> None:
    call = world.add_call()
    message = await _ask(world, call)
    assert (await _deliver(world, world.slack.build_click(message, ACTION_REJECT, "U1")))[0] == 200
    assert not world.answered(call)
    [form] = world.slack.forms
    assert "https://swapi.dev/api/people/2" in json.dumps(form["blocks"])
    submission = world.slack.build_submission(form, "use the other API", "U1")
    assert await _deliver(world, submission) == (200, "")
    decision = world.read(call).spec.decision
    assert decision is not None
    assert (decision.approved, decision.comment) == (False, "use the other API")
    assert "Rejected by slack:U1" in json.dumps(world.slack.updates)


async def test_answers_a_question_in_a_form(world: World) -> None:
    call = world.add_call(toolType="HumanContact", arguments='{"message":"Which colour?"}')
    message = await _ask(world, call)
    await _deliver(world, world.slack.build_click(message, ACTION_ANSWER, "U1"))
    [form] = world.slack.forms
    status, said = await _deliver(world, world.slack.build_submission(form, "  ", "U1"))
    assert (status, json.loads(said)["response_action"]) == (200, "errors")
    assert not world.answered(call)
    assert await _deliver(world, world.slack.build_submission(form, "Blue", "U1")) == (200, "")
    response = world.read(call).spec.response
    assert response is not None
    assert (response.message, response.by, response.via) == ("Blue", "slack:U1 (alice)", "slack")


async def test_a_late_click_is_told_who_decided_and_when(world: World) -> None:
    call = world.add_call()
    message = await _ask(world, call)
    await _deliver(world, world.slack.build_click(message, ACTION_REJECT, "U2"))
    await _deliver(world, world.slack.build_click(message, ACTION_APPROVE, "U1"))
    before = world.read(call)
    await _deliver(world, world.slack.build_click(message, ACTION_APPROVE, "U2", "bob"))
    [whisper] = world.slack.whispers
    assert whisper["response_type"] == "ephemeral"
    assert whisper["text"].startswith("Approved by slack:U1 (alice) at ")
    [form] = world.slack.forms
    status, said = await _deliver(world, world.slack.build_submission(form, "no", "U2", "bob"))
    assert (status, "Approved by slack:U1 (alice) at " in said) == (200, True)
    assert "not needed" not in json.dumps(world.slack.updates)
    assert world.read(call) == before
    assert [event[0] for event in world.recorder.events] == [f"TaskRunToolCall/default/{call.name}"] * 2
    assert "by slack:U2 (bob) through slack" in world.recorder.events[0][3]


async def test_only_those_who_are_allowed_may_answer(world: World) -> None:
    call = world.add_call()
    message = await _ask(world, call)
    await _deliver(world, world.slack.build_click(message, ACTION_REJECT, "U2"))
    _allow(world, "U1")
    assert (await _deliver(world, world.slack.build_click(message, ACTION_APPROVE, "U2", "eve")))[0] == 200
    status, said = await _deliver(world, world.slack.build_submission(world.slack.forms[0], "no", "U2", "eve"))
    assert (status, "may not answer" in said) == (200, True)
    assert "may not answer" in world.slack.whispers[0]["text"]
    assert not world.answered(call)
    assert world.slack.updates == []
    assert {event[3] for event in world.recorder.events} == {
        "Refused an answer by slack:U2 (eve) through slack: not in allowedResponderIDs"
    }
    assert {event[0] for event in world.recorder.events} == {f"TaskRunToolCall/default/{call.name}"}


async def test_one_who_is_not_allowed_gets_no_form(world: World) -> None:
    _allow(world, "U1")
    message = await _ask(world, world.add_call())
    await _deliver(world, world.slack.build_click(message, ACTION_REJECT, "U2"))
    assert world.slack.forms == []


@pytest.mark.parametrize("what", ["secret", "stale", "early", "body", "missing"])
async def test_a_wrong_signature_is_refused(world: World, what: str) -> None:
    call = world.add_call()
    interaction = world.slack.build_click(await _ask(world, call), ACTION_APPROVE, "U1")
    body, headers = interaction.body, interaction.headers
    match what:
        case "secret":
            headers = world.slack.sign(body, secret="wrong")
        case "stale":
            headers = world.slack.sign(body, at=time.time() - 301)
        case "early":
            headers = world.slack.sign(body, at=time.time() + 330)
        case "body":
            body += b"&x=1"
        case "missing":
            headers = {"Content-Type": headers["Content-Type"]}
    assert (await _deliver(world, Interaction(body, headers)))[0] == 401
    _check_refused(world, call, "Refused an answer through slack: ")


async def test_a_button_of_another_message_decides_nothing(world: World) -> None:
    call = world.add_call()
    message = await _ask(world, call)
    for block in message["blocks"]:
        for element in block.get("elements", []):
            if "value" in element:
                element["value"] = f"{element['value'][:-2]}xx"
    assert (await _deliver(world, world.slack.build_click(message, ACTION_APPROVE, "U1")))[0] == 200
    _check_refused(world, call, "by slack:U1 (alice) through slack: the token is not one of ours")
    assert "not a request of this channel" in world.slack.whispers[0]["text"]


async def test_a_message_of_an_earlier_channel_of_this_name_decides_nothing(world: World) -> None:
    call = world.add_call()
    message = await _ask(world, call, uid="uid-of-an-earlier-team")
    await _deliver(world, world.slack.build_click(message, ACTION_APPROVE, "U1"))
    _check_refused(world, call, "another channel")


async def test_a_namesake_channel_in_another_namespace_decides_nothing_here(world: World) -> None:
    call, namesake = world.add_call(), world.add_call(namespace="other")
    message = await _ask(world, call)
    await _deliver(world, world.slack.build_click(message, ACTION_APPROVE, "U1"), path="other/team")
    assert world.recorder.events[-1][0] == "ContactChannel/other/team"
    assert not world.answered(call)
    assert not world.answered(namesake)


@pytest.mark.parametrize("path", ["default/nobody", "default/hook", "nowhere/team"])
async def test_a_channel_that_is_no_slack_takes_nothing(world: World, path: str) -> None:
    call = world.add_call()
    click = world.slack.build_click(await _ask(world, call), ACTION_APPROVE, "U1")
    assert (await _deliver(world, click, path=path))[0] == 404
    assert not world.answered(call)


async def test_an_answer_stands_though_slack_does_not_show_it(world: World) -> None:
    call = world.add_call()
    message = await _ask(world, call)
    world.slack.fail("chat.update", (503, {}))
    assert await _deliver(world, world.slack.build_click(message, ACTION_APPROVE, "U1")) == (200, "")
    assert world.answered(call)


async def test_a_form_that_does_not_open_is_told_of(world: World) -> None:
    call = world.add_call()
    message = await _ask(world, call)
    world.slack.fail("views.open", {"ok": False, "error": "expired_trigger_id"})
    await _deliver(world, world.slack.build_click(message, ACTION_REJECT, "U1"))
    assert "did not open the form" in world.slack.whispers[0]["text"]
    assert not world.answered(call)


async def test_while_the_cluster_is_away_the_person_is_told(world: World) -> None:
    call = world.add_call()
    message = await _ask(world, call)
    await _deliver(world, world.slack.build_click(message, ACTION_REJECT, "U1"))
    world.lose_cluster()
    await _deliver(world, world.slack.build_click(message, ACTION_APPROVE, "U1"))
    assert "Nothing was changed" in world.slack.whispers[0]["text"]
    _, said = await _deliver(world, world.slack.build_submission(world.slack.forms[0], "no", "U1"))
    assert "Nothing was changed" in said


async def test_until_the_key_is_known_nobody_is_turned_away(world: World) -> None:
    call = world.add_call()
    click = world.slack.build_click(await _ask(world, call), ACTION_APPROVE, "U1")
    world.secrets.known = False
    await _deliver(world, click)
    assert "try again" in world.slack.whispers[0]["text"]
    assert world.recorder.events == []
    world.secrets.known = True
    await _deliver(world, click)
    assert world.answered(call)


async def test_a_right_that_is_missing_is_no_outage(world: World) -> None:
    call = world.add_call()
    message = await _ask(world, call)
    await _deliver(world, world.slack.build_click(message, ACTION_REJECT, "U1"))
    world.take_right()
    with capture_logs() as lines:
        await _deliver(world, world.slack.build_click(message, ACTION_APPROVE, "U1"))
        _, said = await _deliver(world, world.slack.build_submission(world.slack.forms[0], "no", "U1"))
    for told in (world.slack.whispers[0]["text"], said):
        assert ("lacks a right" in told, "try again" in told) == (True, False)
    assert [line["error"] for line in lines] == ["human-bridge may not patch taskruntoolcalls"] * 2


async def test_an_answer_without_a_word_is_not_said_to_have_changed_nothing(world: World) -> None:
    message = await _ask(world, world.add_call())
    world.lose_word()
    await _deliver(world, world.slack.build_click(message, ACTION_APPROVE, "U1"))
    [whisper] = world.slack.whispers
    assert ("Nothing was changed" in whisper["text"], "Try again soon" in whisper["text"]) == (False, True)


async def test_other_interactions_are_acknowledged(world: World) -> None:
    for payload in ({"type": "shortcut"}, {"type": "block_actions", "user": {"id": "U1"}, "actions": []}):
        assert await _deliver(world, world.slack.build_interaction(payload)) == (200, "")
    for body in (b"", b"payload=nonsense", b"payload=[]"):
        assert (await _deliver(world, Interaction(body, world.slack.sign(body))))[0] == 400
    assert world.cluster.reads == 0


@pytest.mark.parametrize(
    ("url", "base", "allowed"),
    [
        ("https://hooks.slack.com/actions/T/1", None, True),
        ("https://hooks.slack-gov.com/actions/T/1", None, True),
        ("http://hooks.slack.com/actions/T/1", None, False),
        ("https://slack.com.evil.example/", None, False),
        ("https://evilslack.com/", None, False),
        ("http://127.0.0.1:9/respond", "http://127.0.0.1:8/api", True),
        ("http://169.254.169.254/", "http://127.0.0.1:8/api", False),
        ("http://[", None, False),
        ("", None, False),
    ],
)
def test_only_slack_is_answered(url: str, base: str | None, allowed: bool) -> None:
    assert is_slack_url(url, base) is allowed


def test_verifies_as_slack_documents_it() -> None:
    """The worked example of Slack's documentation."""
    body = (
        b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name="
        b"foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2F"
        b"hooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015."
        b"47445629121.803a0bc887a14d10d2c447fce8b6703c"
    )
    headers = {
        "X-Slack-Request-Timestamp": "1531420618",
        "X-Slack-Signature": "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
    }
    verify_slack("8f742231b10e8888abcd99yyyzzz85a5", headers, body, 1531420618)
    with pytest.raises(SignatureError):
        verify_slack("8f742231b10e8888abcd99yyyzzz85a5", headers, body + b" ", 1531420618)


_PAYLOADS = st.fixed_dictionaries(
    {"type": st.sampled_from(["block_actions", "view_submission", "other"]) | JSON},
    optional=dict.fromkeys(("user", "actions", "container", "view", "response_url", "trigger_id"), JSON)
    | {"user": st.just({"id": "U1"}) | JSON},
)


@fuzz
@given(st.binary() | _PAYLOADS.map(lambda payload: urlencode({"payload": json.dumps(payload)}).encode()))
def test_any_payload_is_read_or_refused(body: bytes) -> None:
    try:
        interaction = parse_interaction(body)
    except InteractionError:
        return
    assert interaction is None or interaction.who.id


@fuzz
@given(stamp=st.text(), signature=st.text(), body=st.binary())
def test_no_header_is_taken_for_a_signature(stamp: str, signature: str, body: bytes) -> None:
    headers = {"X-Slack-Request-Timestamp": stamp, "X-Slack-Signature": signature}
    with pytest.raises(SignatureError):
        verify_slack("secret", headers, body, time.time())


def test_a_form_remembers_its_message() -> None:
    place = Place("token", "C1", "1.2")
    assert Place.from_metadata(place.to_metadata()) == place


def _check_refused(world: World, call: ObjectRef, why: str) -> None:
    assert not world.answered(call)
    assert world.slack.updates == []
    assert world.recorder.events[-1][:3] == _CHANNEL_EVENT
    assert why in world.recorder.events[-1][3]
