"""Webhooks: what is delivered, how it is signed, and which answers are tried again."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from hypothesis import given
from hypothesis import strategies as st

from kubechain_common.api.v1alpha1.contactchannel import ContactChannelSpec
from kubechain_common.messages import ObjectRef
from kubechain_common.testing.arbitrary import fuzz
from kubechain_human_bridge.channels.base import Ask
from kubechain_human_bridge.channels.call_token import (
    CallToken,
    CallTokenError,
    CallTokens,
    read_call_token,
    write_call_token,
)
from kubechain_human_bridge.channels.errors import ChannelError, ChannelRefusedError, ChannelUnavailableError
from kubechain_human_bridge.channels.standard_webhooks import (
    SignatureError,
    SigningKeyError,
    read_key,
    sign,
    verify,
)
from kubechain_human_bridge.channels.webhook import WebhookChannel

BuildAsk = Callable[..., Ask]
CHANNEL = ObjectRef(namespace="default", name="hook", uid="channel-uid")
KEY = "the key of the links"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@dataclass
class Receiver:
    url: str = ""
    received: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    answer: tuple[int, dict[str, str]] = (204, {})

    async def handle(self, request: web.Request) -> web.Response:
        self.received.append(({k.lower(): v for k, v in request.headers.items()}, await request.read()))
        return web.Response(status=self.answer[0], headers=self.answer[1])


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    received = Receiver()
    app = web.Application()
    app.router.add_post("/hook", received.handle)
    async with TestServer(app) as served:
        received.url = str(served.make_url("/hook"))
        yield received


def _channel(url: str, session: aiohttp.ClientSession, secret: str = SECRET) -> WebhookChannel:
    source = {"secretKeyRef": {"name": "hook", "key": "secret"}}
    spec = {"type": "webhook", "webhook": {"url": url, "signingSecretFrom": source}}
    callback = "http://127.0.0.1:8090/callbacks/default/hook"
    return WebhookChannel(
        ContactChannelSpec.model_validate(spec),
        {"signingSecretFrom": secret},
        session,
        CHANNEL,
        callback,
        CallTokens(lambda: KEY),
    )


async def test_validates_without_a_request(receiver: Receiver, session: aiohttp.ClientSession) -> None:
    assert await _channel(receiver.url, session).validate() == "Webhook channel validated successfully"
    assert receiver.received == []


@pytest.mark.parametrize(
    ("url", "secret"), [("ftp://x/", SECRET), ("http://[", SECRET), ("http://x/", "whsec_!"), ("http://x/", "")]
)
async def test_a_configuration_that_can_not_work_is_refused(
    session: aiohttp.ClientSession, build_ask: BuildAsk, url: str, secret: str
) -> None:
    channel = _channel(url, session, secret)
    with pytest.raises(ChannelRefusedError):
        await channel.validate()
    with pytest.raises(ChannelRefusedError):
        await channel.send(build_ask())


async def test_delivers_a_signed_request(
    receiver: Receiver, session: aiohttp.ClientSession, build_ask: BuildAsk
) -> None:
    ask = build_ask()
    await _channel(receiver.url, session).send(ask)
    await _channel(receiver.url, session).send(build_ask(again=True))

    (headers, body), (again_headers, again_body) = receiver.received
    verify(read_key(SECRET), headers, body, time.time())
    assert headers["webhook-id"] == again_headers["webhook-id"] == "ec-0123456789abcdef"
    told = json.loads(body)
    assert told["type"] == "approval.requested"
    assert told["callId"] == ask.external_call_id
    assert told["arguments"] == ask.arguments
    assert told["callbackUrl"] == "http://127.0.0.1:8090/callbacks/default/hook"
    assert read_call_token(KEY, told["token"]) == CallToken(ask.call, CHANNEL.uid, "Approval")
    assert (told["again"], json.loads(again_body)["again"]) == (False, True)


@pytest.mark.parametrize(
    ("status", "headers", "error", "retry_after"),
    [
        (400, {}, ChannelRefusedError, None),
        (401, {}, ChannelRefusedError, None),
        (408, {}, ChannelUnavailableError, None),
        (429, {"Retry-After": "7"}, ChannelUnavailableError, 7.0),
        (429, {"Retry-After": "inf"}, ChannelUnavailableError, None),
        (503, {"Retry-After": "soon"}, ChannelUnavailableError, None),
        (302, {"Location": "http://127.0.0.1:1/elsewhere"}, ChannelRefusedError, None),
    ],
)
async def test_the_status_decides_whether_it_is_tried_again(
    receiver: Receiver,
    session: aiohttp.ClientSession,
    build_ask: BuildAsk,
    status: int,
    headers: dict[str, str],
    error: type[ChannelError],
    retry_after: float | None,
) -> None:
    receiver.answer = (status, headers)
    with pytest.raises(error, match=str(status)) as caught:
        await _channel(receiver.url, session).send(build_ask())
    assert caught.value.retry_after == retry_after
    assert len(receiver.received) == 1


async def test_a_receiver_that_is_away_is_tried_again_and_its_url_is_not_told(
    session: aiohttp.ClientSession, build_ask: BuildAsk
) -> None:
    with pytest.raises(ChannelUnavailableError) as caught:
        await _channel("http://127.0.0.1:1/secret-path", session).send(build_ask())
    assert "secret-path" not in str(caught.value)


def test_signs_as_the_specification_does() -> None:
    """The vector of the Standard Webhooks libraries."""
    body = b'{"test": 2432232314}'
    headers = sign(read_key(SECRET), "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    verify(read_key(SECRET), headers, body, 1614265330 + 299)
    headers["webhook-signature"] = f"v1,AAAA v2,xyz {headers['webhook-signature']}"
    verify(read_key(SECRET), headers, body, 1614265330 - 299)


@pytest.mark.parametrize("change", ["key", "id", "timestamp", "body", "signature", "missing", "late", "early"])
def test_whatever_is_changed_breaks_the_signature(change: str) -> None:
    headers, body, key, moment = sign(b"key", "id", 1000, b"{}"), b"{}", b"key", 1000.0
    match change:
        case "key":
            key = b"other"
        case "id":
            headers["webhook-id"] = "other"
        case "timestamp":
            headers["webhook-timestamp"] = "1001"
        case "body":
            body = b"[]"
        case "signature":
            headers["webhook-signature"] = "v1,AAAA"
        case "missing":
            del headers["webhook-signature"]
        case "late":
            moment = 1301.0
        case "early":
            moment = 699.0
    with pytest.raises(SignatureError):
        verify(key, headers, body, moment)


@fuzz
@given(
    headers=st.fixed_dictionaries(
        {name: st.text() for name in ("webhook-id", "webhook-timestamp", "webhook-signature")}
    ),
    body=st.binary(),
)
def test_no_header_is_taken_for_a_signature(headers: dict[str, str], body: bytes) -> None:
    with pytest.raises(SignatureError):
        verify(b"key", headers, body, time.time())


@fuzz
@given(st.text())
def test_any_secret_is_a_key_or_refused(secret: str) -> None:
    with suppress(SigningKeyError):
        assert read_key(secret)


@fuzz
@given(st.text())
def test_no_text_is_taken_for_a_call_token(text: str) -> None:
    with pytest.raises(CallTokenError):
        read_call_token(SECRET, text)


def test_a_call_token_is_good_for_its_secret_only() -> None:
    token = CallToken(ObjectRef(namespace="default", name="n" * 253, uid="u"), "c", "Contact")
    text = write_call_token(SECRET, token)
    assert read_call_token(SECRET, text) == token
    assert len(text) < 2000
    with pytest.raises(CallTokenError):
        read_call_token("other", text)


def test_without_a_key_no_token_is_made_and_none_is_good() -> None:
    token = CallToken(ObjectRef(namespace="default", name="c", uid="u"), "channel", "Approval")
    tokens = CallTokens(lambda: "")
    with pytest.raises(ChannelUnavailableError):
        tokens.write(token)
    with pytest.raises(CallTokenError):
        tokens.read(write_call_token("", token))
