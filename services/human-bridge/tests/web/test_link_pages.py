"""Answers by signed links: what they show, what they do, and every way in which one is refused."""

from __future__ import annotations

import tracemalloc
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from itsdangerous import URLSafeSerializer
from structlog.testing import capture_logs
from web_testbed import LINK_KEY, World

from kubechain_common.messages import ObjectRef
from kubechain_common.testing.arbitrary import fuzz
from kubechain_human_bridge.audit import Budget
from kubechain_human_bridge.channels.errors import ChannelUnavailableError
from kubechain_human_bridge.links.signed_links import (
    ExpiredLinkError,
    ForgedLinkError,
    Grant,
    LinkError,
    read_grant,
    write_grant,
)
from kubechain_human_bridge.web.links import FormError, parse_form, read_answer, read_change

MOMENT = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
REF = ObjectRef(namespace="default", name="approved-tc-01", uid="uid-default-approved-tc-01")
GRANT = Grant(REF, "Approval", "approver@example.com", MOMENT)


def _url(world: World, link: str) -> str:
    """The link as it reaches the server of the test."""
    assert link.startswith("https://people.example.com/answer?token=")
    return f"{world.url}/answer?{urlsplit(link).query}"


async def _get(world: World, url: str) -> tuple[int, str]:
    async with world.session.get(url) as response:
        return response.status, await response.text()


async def _post(world: World, url: str, **form: str) -> tuple[int, str]:
    async with world.session.post(url, data=form) as response:
        return response.status, await response.text()


async def test_opening_a_link_shows_the_request_and_decides_nothing(world: World) -> None:
    call = world.add_call(arguments='{"url":"<script>alert(1)</script>"}')
    url = _url(world, world.links.answer_link(call, "Approval", "approver@example.com"))
    async with world.session.get(url) as response:
        page, headers = await response.text(), response.headers
        assert response.status == 200
    assert "fetch__fetch" in page
    assert "my-assistant" in page
    assert "default/approved" in page
    assert "approver@example.com" in page
    assert "<script>" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert (headers["Cache-Control"], headers["Referrer-Policy"]) == ("no-store", "no-referrer")
    assert "noindex" in headers["X-Robots-Tag"]
    assert not world.answered(call)
    assert world.recorder.events == []


async def test_approves_with_the_name_in_the_link(world: World) -> None:
    call = world.add_call()
    url = _url(world, world.links.answer_link(call, "Approval", "approver@example.com"))
    status, page = await _post(world, url, action="approve", by="somebody else")
    assert (status, "Approved by approver@example.com" in page) == (200, True)
    decision = world.read(call).spec.decision
    assert decision is not None
    assert (decision.approved, decision.by, decision.via) == (True, "approver@example.com", "link")
    assert decision.arguments is None
    assert decision.at is not None


async def test_rejects_with_a_comment(world: World) -> None:
    call = world.add_call()
    url = _url(world, world.links.answer_link(call, "Approval", "approver@example.com"))
    assert (await _post(world, url, action="reject", comment="use the\r\nother API"))[0] == 200
    decision = world.read(call).spec.decision
    assert decision is not None
    assert (decision.approved, decision.comment) == (False, "use the\nother API")


async def test_edits_the_arguments(world: World) -> None:
    call = world.add_call()
    url = _url(world, world.links.answer_link(call, "Approval", "a@example.com"))
    status, page = await _post(world, url, action="approve", arguments="{nonsense")
    assert (status, "not valid JSON" in page) == (422, True)
    assert not world.answered(call)
    assert (await _post(world, url, action="approve", arguments='{"url": "https://example.com"}'))[0] == 200
    decision = world.read(call).spec.decision
    assert decision is not None
    assert decision.arguments == '{"url": "https://example.com"}'


async def test_answers_a_question(world: World) -> None:
    call = world.add_call(toolType="HumanContact", target={"name": "mail"}, arguments='{"message":"Which colour?"}')
    url = _url(world, world.links.answer_link(call, "Contact", "a@example.com"))
    status, page = await _get(world, url)
    assert (status, "Which colour?" in page, 'value="approve"' in page) == (200, True, False)
    assert (await _post(world, url, action="respond", message="  "))[0] == 422
    assert (await _post(world, url, action="approve"))[0] == 422
    assert not world.answered(call)
    assert (await _post(world, url, action="respond", message="Blue"))[0] == 200
    response = world.read(call).spec.response
    assert response is not None
    assert (response.message, response.by, response.via) == ("Blue", "a@example.com", "link")


async def test_a_used_link_tells_who_decided_and_when_and_changes_nothing(world: World) -> None:
    call = world.add_call()
    url = _url(world, world.links.answer_link(call, "Approval", "first@example.com"))
    other = _url(world, world.links.answer_link(call, "Approval", "second@example.com"))
    await _post(world, url, action="approve")
    before = world.read(call)
    for late, by in ((url, "first@example.com"), (other, "second@example.com")):
        status, page = await _post(world, late, action="reject")
        assert status == 409
        assert "Approved by first@example.com at " in page
        assert "UTC" in page
        assert world.recorder.events[-1][:3] == (
            f"TaskRunToolCall/{call.namespace}/{call.name}",
            "Warning",
            "DecisionRefused",
        )
        assert f"Refused an answer by {by} through link: Approved by first@example.com" in world.recorder.events[-1][3]
        assert (await _get(world, late))[0] == 409
    assert world.read(call) == before


async def test_an_expired_link_is_refused_and_told_of(world: World) -> None:
    call = world.add_call()
    link = world.links.answer_link(call, "Approval", "a@example.com", datetime.now(UTC) - timedelta(seconds=1))
    for status, page in (await _get(world, _url(world, link)), await _post(world, _url(world, link), action="approve")):
        assert (status, "expired" in page) == (403, True)
    assert not world.answered(call)
    assert {event[3] for event in world.recorder.events} == {
        "Refused an answer by a@example.com through link: the link has expired"
    }


@pytest.mark.parametrize("key", ["another key", ""])
async def test_a_forged_link_is_refused_and_told_of_without_its_words(world: World, key: str) -> None:
    call = world.add_call()
    forged = write_grant(key, Grant(call, "Approval", "ceo@example.com", datetime.now(UTC) + timedelta(days=1)))
    status, page = await _post(world, f"{world.url}/answer?token={forged}", action="approve")
    assert (status, "not valid" in page) == (403, True)
    assert not world.answered(call)
    assert world.recorder.events == [
        (
            f"TaskRunToolCall/{call.namespace}/{call.name}",
            "Warning",
            "DecisionRefused",
            "Refused an answer through link: the link is forged",
        )
    ]


async def test_deleting_the_key_revokes_every_link(world: World) -> None:
    call = world.add_call()
    url = _url(world, world.links.answer_link(call, "Approval", "a@example.com"))
    world.secrets.key = ""
    with pytest.raises(ChannelUnavailableError, match="the key of the links"):
        world.links.answer_link(call, "Approval", "a@example.com")
    assert (await _post(world, url, action="approve"))[0] == 403
    world.secrets.key = "the next key"
    assert (await _post(world, url, action="approve"))[0] == 403
    assert not world.answered(call)


async def test_until_the_key_is_known_nobody_is_turned_away(world: World) -> None:
    call = world.add_call()
    url = _url(world, world.links.answer_link(call, "Approval", "a@example.com"))
    world.secrets.known = False
    with pytest.raises(ChannelUnavailableError, match="not known yet"):
        world.links.answer_link(call, "Approval", "a@example.com")
    for status, page in (await _get(world, url), await _post(world, url, action="approve")):
        assert (status, "try again" in page) == (503, True)
    assert world.recorder.events == []
    world.secrets.known = True
    assert (await _post(world, url, action="approve"))[0] == 200


async def test_a_claim_about_a_call_with_another_uid_is_not_told_of(world: World) -> None:
    call = world.add_call()
    claimed = ObjectRef(namespace=call.namespace, name=call.name, uid="guessed")
    forged = write_grant("x", Grant(claimed, "Approval", "a", datetime.now(UTC) + timedelta(days=1)))
    assert (await _post(world, f"{world.url}/answer?token={forged}", action="approve"))[0] == 403
    assert world.recorder.events == []


async def test_a_flood_of_forged_links_asks_the_api_server_a_few_times_only(world: World) -> None:
    call = world.add_call()
    forged = write_grant("x", Grant(call, "Approval", "a", datetime.now(UTC) + timedelta(days=1)))
    for _ in range(60):
        assert (await _post(world, f"{world.url}/answer?token={forged}", action="approve"))[0] == 403
    assert world.cluster.reads < 40


@pytest.mark.parametrize("token", ["", "x", "a.b", "%00", "x" * 5000, "W10.x", ".eJyLNtBRMIgFAAf2Abs.x"])
async def test_a_malformed_link_is_refused(world: World, token: str) -> None:
    for status, page in (
        await _get(world, f"{world.url}/answer?token={token}"),
        await _post(world, f"{world.url}/answer?token={token}", action="approve"),
    ):
        assert (status, "not " in page) == (403, True)
    assert world.cluster.reads == 0


async def test_a_link_to_an_approval_answers_no_question_and_no_other_call(world: World) -> None:
    call = world.add_call()
    namesake = world.add_call(namespace="other")
    url = _url(world, world.links.answer_link(call, "Contact", "a@example.com"))
    assert (await _get(world, url))[0] == 409
    assert (await _post(world, url, action="respond", message="yes"))[0] == 409
    stale = ObjectRef(namespace="default", name=call.name, uid="an-earlier-call")
    url = _url(world, world.links.answer_link(stale, "Approval", "a@example.com"))
    assert (await _get(world, url))[0] == 404
    assert (await _post(world, url, action="approve"))[0] == 404
    assert not world.answered(call)
    assert not world.answered(namesake)


async def test_while_the_cluster_is_away_nothing_is_lost(world: World) -> None:
    call = world.add_call()
    url = _url(world, world.links.answer_link(call, "Approval", "a@example.com"))
    world.lose_cluster()
    assert (await _get(world, url))[0] == 503
    assert (await _post(world, url, action="approve"))[0] == 503
    world.cluster.error = None
    assert (await _post(world, url, action="approve"))[0] == 200


async def test_a_right_that_is_missing_is_no_outage(world: World) -> None:
    call = world.add_call()
    url = _url(world, world.links.answer_link(call, "Approval", "a@example.com"))
    world.take_right()
    with capture_logs() as lines:
        status, page = await _post(world, url, action="approve")
    assert (status, "lacks a right" in page, "try again" in page) == (500, True, False)
    assert [line["error"] for line in lines] == ["human-bridge may not patch taskruntoolcalls"]


async def test_an_answer_without_a_word_is_not_said_to_have_changed_nothing(world: World) -> None:
    call = world.add_call()
    url = _url(world, world.links.answer_link(call, "Approval", "a@example.com"))
    world.lose_word()
    status, page = await _post(world, url, action="approve")
    assert (status, "Nothing was changed" in page, "Try again soon" in page) == (503, False, True)
    status, page = await _post(world, url, action="approve")
    assert (status, "Approved by a@example.com at " in page) == (409, True)


def test_a_link_is_good_until_its_end() -> None:
    token = write_grant(LINK_KEY, GRANT)
    assert read_grant(LINK_KEY, token, MOMENT - timedelta(seconds=1)) == GRANT
    with pytest.raises(ExpiredLinkError) as caught:
        read_grant(LINK_KEY, token, MOMENT)
    assert caught.value.grant == GRANT
    with pytest.raises(ForgedLinkError):
        read_grant("", write_grant("", GRANT), MOMENT - timedelta(seconds=1))


def test_what_a_stranger_compressed_is_not_unfolded() -> None:
    bomb = URLSafeSerializer("another key", salt="kubechain.link.v1").dumps([0] * 1_000_000)
    assert bomb.startswith(".")
    assert len(bomb) < 4000
    tracemalloc.start()
    with pytest.raises(LinkError, match="not complete"):
        read_grant(LINK_KEY, bomb, MOMENT)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 100_000


def test_a_genuine_token_of_another_shape_allows_nothing() -> None:
    other = URLSafeSerializer(LINK_KEY, salt="kubechain.call.v1").dumps(["default", "x", "u", "Approval", "me", 1])
    with pytest.raises(LinkError):
        read_grant(LINK_KEY, str(other), MOMENT)


@fuzz
@given(st.text() | st.binary().map(lambda raw: raw.decode("latin-1")))
def test_any_text_for_a_token_is_refused(text: str) -> None:
    with pytest.raises(LinkError):
        read_grant(LINK_KEY, text, MOMENT)


@fuzz
@given(st.data())
def test_a_token_with_one_character_changed_is_refused(data: st.DataObject) -> None:
    token = write_grant(LINK_KEY, GRANT)
    at = data.draw(st.integers(0, len(token) - 2))  # the last one holds spare bits
    char = data.draw(st.sampled_from("abcXYZ019-_.").filter(lambda c: c != token[at]))
    with pytest.raises(LinkError):
        read_grant(LINK_KEY, token[:at] + char + token[at + 1 :], MOMENT - timedelta(days=1))


@fuzz
@given(st.binary() | st.text().map(lambda text: f"action=approve&arguments={text}".encode()))
def test_any_bytes_for_a_form_are_read_or_refused(body: bytes) -> None:
    assert isinstance(parse_form(body), dict)
    try:
        answer = read_answer(body, GRANT, "{}", MOMENT)
    except FormError:
        return
    assert (answer.by, answer.at) == (GRANT.by, MOMENT)


@pytest.mark.parametrize(
    ("text", "edited"),
    [("", None), ('{ "a": 1 }', None), ('{"a": 2}', '{"a": 2}'), ('{"a": true}', '{"a": true}')],
)
def test_only_a_change_counts_as_one(text: str, edited: str | None) -> None:
    assert read_change(text, '{"a":1}') == edited


@pytest.mark.parametrize("text", ['{"a": NaN}', '{"a": -Infinity}', "[]", "{", "[" * 100_000])
def test_a_slip_in_the_arguments_does_not_use_up_the_answer(text: str) -> None:
    with pytest.raises(FormError, match="approve again"):
        read_change(text, '{"a":1}')


def test_what_the_model_wrote_is_no_slip_of_the_person() -> None:
    assert read_change('{"a": NaN}', '{"a":NaN}') is None


def test_a_budget_is_spent_and_comes_back() -> None:
    budget = Budget(per_second=1.0, burst=2.0)
    assert [budget.take(10.0) for _ in range(3)] == [True, True, False]
    assert budget.take(11.0)
    assert not budget.take(11.5)
