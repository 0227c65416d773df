"""The HumanLayer channel on real HTTP: what it sends, and what it makes of every kind of answer."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer, unused_port

from kubechain_common.api.v1alpha1.contactchannel import ContactChannelSpec
from kubechain_common.messages import ObjectRef
from kubechain_common.testing.builders import NOW
from kubechain_human_bridge.channels.base import Ask, Kind, PolledChannel
from kubechain_human_bridge.channels.errors import ChannelRefusedError, ChannelUnavailableError
from kubechain_human_bridge.channels.humanlayer import HumanLayerChannel

KEY = "hl-secret-key"
SPEC: dict[str, Any] = {
    "type": "email",
    "apiKeyFrom": {"secretKeyRef": {"name": "s", "key": "k"}},
    "email": {"address": "approver@example.com", "subject": "Please", "contextAboutUser": "the approver"},
}


@dataclass
class API:
    """Answers with what was queued, in order."""

    url: str = ""
    seen: list[tuple[str, str, str, Any]] = field(default_factory=list)
    answers: list[web.Response] = field(default_factory=list)

    def answer(self, status: int = 200, body: Any = None, **headers: str) -> None:
        self.answers.append(
            web.json_response(body, status=status, headers={k.replace("_", "-"): v for k, v in headers.items()})
        )

    async def handle(self, request: web.Request) -> web.Response:
        text = await request.text()
        key = request.headers.get("Authorization", "")
        self.seen.append((request.method, request.path, key, json.loads(text) if text else None))
        return self.answers.pop(0)


@pytest.fixture
async def api() -> AsyncIterator[API]:
    scripted = API()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", scripted.handle)
    server = TestServer(app)
    await server.start_server()
    scripted.url = str(server.make_url("")).rstrip("/")
    yield scripted
    await server.close()


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def open_channel(session: aiohttp.ClientSession, url: str, **spec: Any) -> HumanLayerChannel:
    full = {name: value for name, value in {**SPEC, **spec}.items() if value is not None}
    return HumanLayerChannel(ContactChannelSpec.model_validate(full), {"apiKeyFrom": KEY}, session, url)


def build_ask(kind: Kind = "Approval", *, again: bool = False, arguments: str = '{"url": "u"}') -> Ask:
    return Ask(
        call=ObjectRef(namespace="default", name="call", uid="u"),
        kind=kind,
        external_call_id="ec-1",
        run_id="kc-1",
        task="task",
        agent="agent",
        tool="fetch__fetch",
        arguments=arguments,
        message="Which year?",
        user_message="",
        requested_at=NOW,
        again=again,
    )


async def test_validation_asks_for_the_project_and_nothing_else(api: API, session: aiohttp.ClientSession) -> None:
    api.answer(200, {"name": "p"})
    channel = open_channel(session, api.url)
    assert await channel.validate() == "HumanLayer email channel validated successfully"
    assert api.seen == [("GET", "/humanlayer/v1/project", f"Bearer {KEY}", None)]
    assert isinstance(channel, PolledChannel)


async def test_an_approval_by_mail(api: API, session: aiohttp.ClientSession) -> None:
    api.answer(201, {})
    assert await open_channel(session, api.url).send(build_ask()) == "HumanLayer request sent"
    assert api.seen[0][:2] == ("POST", "/humanlayer/v1/function_calls")
    assert api.seen[0][3] == {
        "run_id": "kc-1",
        "call_id": "ec-1",
        "spec": {
            "fn": "fetch__fetch",
            "kwargs": {"url": "u"},
            "channel": {
                "email": {
                    "address": "approver@example.com",
                    "context_about_user": "the approver",
                    "experimental_subject_line": "Please",
                }
            },
        },
    }


async def test_a_question_in_slack(api: API, session: aiohttp.ClientSession) -> None:
    slack = {"channelOrUserID": "C123", "allowedResponderIDs": ["U1"], "contextAboutChannelOrUser": "experts"}
    api.answer(201, {})
    await open_channel(session, api.url, type="slack", email=None, slack=slack).send(build_ask("Contact"))
    assert api.seen[0][1] == "/humanlayer/v1/contact_requests"
    assert api.seen[0][3]["spec"] == {
        "msg": "Which year?",
        "channel": {
            "slack": {
                "channel_or_user_id": "C123",
                "context_about_channel_or_user": "experts",
                "allowed_responder_ids": ["U1"],
            }
        },
    }


@pytest.mark.parametrize("base", ["{}", "{}/", "{}/humanlayer/v1"])
async def test_the_channel_may_name_the_address_of_the_api(api: API, session: aiohttp.ClientSession, base: str) -> None:
    api.answer(200, {})
    channel = open_channel(session, "http://not.used", humanLayer={"baseUrl": base.format(api.url)})
    await channel.validate()
    assert api.seen[0][1] == "/humanlayer/v1/project"


async def test_a_request_that_may_have_arrived_is_looked_up_first(api: API, session: aiohttp.ClientSession) -> None:
    api.answer(200, {"call_id": "ec-1", "status": {}})
    await open_channel(session, api.url).send(build_ask(again=True))
    assert [seen[:2] for seen in api.seen] == [("GET", "/humanlayer/v1/function_calls/ec-1")]


async def test_one_that_has_not_arrived_is_sent(api: API, session: aiohttp.ClientSession) -> None:
    api.answer(404, {})
    api.answer(201, {})
    await open_channel(session, api.url).send(build_ask(again=True))
    assert [seen[0] for seen in api.seen] == ["GET", "POST"]


async def test_a_conflict_says_that_the_request_is_there(api: API, session: aiohttp.ClientSession) -> None:
    api.answer(409, {})
    assert await open_channel(session, api.url).send(build_ask()) == "HumanLayer request sent"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422, 301])
async def test_what_is_refused(api: API, session: aiohttp.ClientSession, status: int) -> None:
    api.answer(status, {"detail": f"no, {KEY} is not good"}, Location="http://elsewhere.invalid/")
    with pytest.raises(ChannelRefusedError) as caught:
        await open_channel(session, api.url).send(build_ask())
    assert str(caught.value).startswith(f"HumanLayer request failed with status code {status}: ")
    assert KEY not in str(caught.value)
    assert len(api.seen) == 1


@pytest.mark.parametrize("status", [408, 429, 500, 503])
async def test_what_is_worth_another_try(api: API, session: aiohttp.ClientSession, status: int) -> None:
    api.answer(status, {"detail": "later"}, Retry_After="7")
    with pytest.raises(ChannelUnavailableError) as caught:
        await open_channel(session, api.url).send(build_ask())
    assert caught.value.retry_after == 7


async def test_a_wrong_key_is_called_so(api: API, session: aiohttp.ClientSession) -> None:
    api.answer(401, {})
    with pytest.raises(ChannelRefusedError, match=r"^invalid HumanLayer API key$"):
        await open_channel(session, api.url).validate()


async def test_an_api_that_is_away(session: aiohttp.ClientSession) -> None:
    with pytest.raises(ChannelUnavailableError, match=r"^HumanLayer can not be reached"):
        await open_channel(session, f"http://127.0.0.1:{unused_port()}").validate()


async def test_an_address_that_is_none(session: aiohttp.ClientSession) -> None:
    with pytest.raises(ChannelRefusedError, match="is not a URL"):
        await open_channel(session, "http://[").validate()


async def test_a_key_that_no_header_can_carry(session: aiohttp.ClientSession) -> None:
    with pytest.raises(ChannelRefusedError, match="no HTTP header can carry it"):
        HumanLayerChannel(ContactChannelSpec.model_validate(SPEC), {"apiKeyFrom": "schlüssel"}, session, "http://h")


async def test_answers_are_found(api: API, session: aiohttp.ClientSession) -> None:
    channel = open_channel(session, api.url)
    api.answer(200, {"status": {"approved": None}})
    assert await channel.find_answer("ec-1", "Approval") is None
    api.answer(404, {})
    assert await channel.find_answer("ec-1", "Approval") is None
    api.answer(200, {"status": {"approved": True, "user_info": {"email": "a@b.c"}}})
    found = await channel.find_answer("ec-1", "Approval")
    assert found is not None
    assert (found.approved, found.by) == (True, "a@b.c")
    api.answer(200, {"status": {"responded_at": "2026-01-01T00:00:00Z", "response": "1977"}})
    found = await channel.find_answer("ec-1", "Contact")
    assert found is not None
    assert (found.response, found.by) == ("1977", "approver@example.com")


async def test_an_answer_that_is_no_json_is_trouble(api: API, session: aiohttp.ClientSession) -> None:
    api.answers.append(web.Response(text="<html>"))
    with pytest.raises(ChannelUnavailableError, match="not JSON"):
        await open_channel(session, api.url).find_answer("ec-1", "Approval")
    api.answers.append(web.Response(body=b" " * (2 << 20)))
    with pytest.raises(ChannelUnavailableError, match="can not be reached"):
        await open_channel(session, api.url).find_answer("ec-1", "Approval")
