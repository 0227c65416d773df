"""Slack messages, posted to a server that speaks Slack's Web API."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubechain_common.api.v1alpha1.contactchannel import ContactChannelSpec
from kubechain_common.messages import ObjectRef
from kubechain_common.testing.arbitrary import JSON, fuzz
from kubechain_common.testing.slack_server import BOT_TOKEN, MISSING_SCOPE, SIGNING_SECRET, SlackServer
from kubechain_human_bridge.channels.base import Ask
from kubechain_human_bridge.channels.call_token import CallToken, CallTokens, read_call_token
from kubechain_human_bridge.channels.errors import ChannelError, ChannelRefusedError, ChannelUnavailableError
from kubechain_human_bridge.channels.slack import SlackChannel, is_message_of
from kubechain_human_bridge.channels.slack_api import read_answer

BuildAsk = Callable[..., Ask]
CHANNEL = ObjectRef(namespace="default", name="team", uid="channel-uid")
KEY = "the key of the links"


def _channel(
    slack: SlackServer, session: aiohttp.ClientSession, *, to: str = "C0123ABCD", token: str = BOT_TOKEN
) -> SlackChannel:
    spec = {"type": "slack", "slack": {"channelOrUserID": to, "baseUrl": slack.base_url}}
    secrets = {"botTokenFrom": token, "signingSecretFrom": SIGNING_SECRET}
    return SlackChannel(ContactChannelSpec.model_validate(spec), secrets, session, CHANNEL, CallTokens(lambda: KEY))


async def test_validates_without_a_message(slack: SlackServer, session: aiohttp.ClientSession) -> None:
    assert await _channel(slack, session).validate() == "Slack channel validated successfully"
    assert slack.calls == ["auth.test"]


async def test_posts_the_request_with_buttons_for_this_call_only(
    slack: SlackServer, session: aiohttp.ClientSession, build_ask: BuildAsk
) -> None:
    ask = build_ask()
    await _channel(slack, session).send(ask)
    [message] = slack.messages
    assert message["channel"] == "C0123ABCD"
    assert message["metadata"]["event_payload"] == {"external_call_id": "ec-0123456789abcdef"}
    shown = json.dumps(message["blocks"])
    for text in ("https://swapi.dev/api/people/2", "my-assistant", "default/hello", "Write me a haiku", ask.page_link):
        assert text in shown
    buttons = [b for block in message["blocks"] if block["type"] == "actions" for b in block["elements"]]
    assert [b["action_id"] for b in buttons] == ["kubechain_approve", "kubechain_reject"]
    for button in buttons:
        assert read_call_token(KEY, button["value"]) == CallToken(ask.call, CHANNEL.uid, "Approval")


async def test_a_question_has_one_button(
    slack: SlackServer, session: aiohttp.ClientSession, build_ask: BuildAsk
) -> None:
    await _channel(slack, session).send(build_ask(kind="Contact", message="Which colour?"))
    [message] = slack.messages
    assert "Which colour?" in json.dumps(message["blocks"])
    assert message["blocks"][2]["elements"][0]["action_id"] == "kubechain_answer"


async def test_texts_become_neither_mentions_nor_markup(
    slack: SlackServer, session: aiohttp.ClientSession, build_ask: BuildAsk
) -> None:
    evil = "<!channel> <https://evil.example|click>"
    await _channel(slack, session).send(build_ask(tool=evil, agent=evil, task=evil, user_message=evil, arguments=evil))
    [message] = slack.messages
    assert "<" not in message["text"]
    assert "mrkdwn" not in json.dumps(message["blocks"])


async def test_stays_within_slacks_limits(
    slack: SlackServer, session: aiohttp.ClientSession, build_ask: BuildAsk
) -> None:
    long = "x" * 100_000
    await _channel(slack, session).send(build_ask(tool=long, agent=long, user_message=long, arguments=long, again=True))
    [message] = slack.messages
    header = message["blocks"][0]["text"]["text"]
    assert len(header) <= 150
    assert len(json.dumps(message["blocks"])) < 12_000
    assert "cut: the rest is on the request's page" in json.dumps(message["blocks"])


@pytest.mark.parametrize("to", ["C0123ABCD", "U0123ABCD"])
async def test_a_request_that_was_posted_is_found_and_not_posted_again(
    slack: SlackServer, session: aiohttp.ClientSession, build_ask: BuildAsk, to: str
) -> None:
    channel = _channel(slack, session, to=to)
    await channel.send(build_ask())
    assert await channel.send(build_ask(again=True)) == f"Slack message to {to} was sent before"
    assert len(slack.messages) == 1
    await channel.send(build_ask(again=True, external_call_id="ec-other"))
    assert len(slack.messages) == 2


async def test_where_it_may_not_look_it_sends_and_says_that_it_may_be_a_repetition(
    slack: SlackServer, session: aiohttp.ClientSession, build_ask: BuildAsk
) -> None:
    slack.fail("conversations.history", MISSING_SCOPE)
    await _channel(slack, session).send(build_ask(again=True))
    [message] = slack.messages
    assert "may have reached you before" in json.dumps(message["blocks"])


async def test_while_slack_can_not_be_asked_nothing_is_sent_again(
    slack: SlackServer, session: aiohttp.ClientSession, build_ask: BuildAsk
) -> None:
    slack.fail("conversations.history", (503, {}))
    with pytest.raises(ChannelUnavailableError):
        await _channel(slack, session).send(build_ask(again=True))
    assert slack.messages == []


@pytest.mark.parametrize(
    ("failure", "error", "retry_after", "says"),
    [
        ({"ok": False, "error": "channel_not_found"}, ChannelRefusedError, None, "invite the app"),
        ({"ok": False, "error": "invalid_auth"}, ChannelRefusedError, None, "bot token"),
        ({"ok": False, "error": "missing_scope", "needed": "chat:write"}, ChannelRefusedError, None, "chat:write"),
        ({"ok": False}, ChannelRefusedError, None, "unknown_error"),
        ({"ok": False, "error": "ratelimited"}, ChannelUnavailableError, None, "ratelimited"),
        ((429, {"Retry-After": "30"}), ChannelUnavailableError, 30.0, "429"),
        ((503, {}), ChannelUnavailableError, None, "503"),
        ((404, {}), ChannelRefusedError, None, "slack.baseUrl"),
        ((302, {"Location": "http://127.0.0.1:1/"}), ChannelRefusedError, None, "slack.baseUrl"),
    ],
)
async def test_what_slack_answers_decides_whether_it_is_tried_again(
    slack: SlackServer,
    session: aiohttp.ClientSession,
    build_ask: BuildAsk,
    failure: Any,
    error: type[ChannelError],
    retry_after: float | None,
    says: str,
) -> None:
    slack.fail("chat.postMessage", failure)
    with pytest.raises(error, match=says) as caught:
        await _channel(slack, session).send(build_ask())
    assert caught.value.retry_after == retry_after
    assert BOT_TOKEN not in str(caught.value)


async def test_a_token_that_no_header_can_carry_is_refused_without_being_repeated(
    slack: SlackServer, session: aiohttp.ClientSession
) -> None:
    with pytest.raises(ChannelRefusedError) as caught:
        await _channel(slack, session, token="xoxb\r\nX-Evil: 1").validate()
    assert "xoxb" not in str(caught.value)


async def test_a_slack_that_is_away_is_tried_again(slack: SlackServer, session: aiohttp.ClientSession) -> None:
    slack.origin = "http://127.0.0.1:1"
    with pytest.raises(ChannelUnavailableError, match="Slack can not be reached"):
        await _channel(slack, session).validate()


@fuzz
@given(status=st.integers(100, 599), body=st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_answer_is_read_or_refused(status: int, body: bytes) -> None:
    with suppress(ChannelError):
        assert read_answer("chat.postMessage", status, {}, body)["ok"] is True


@fuzz
@given(JSON)
def test_any_message_is_compared(message: Any) -> None:
    assert is_message_of(message, "ec-1") is False
