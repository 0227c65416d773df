"""Tokens, sessions and who may come in."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta

import pytest
from inbox_testbed import KEY, PAGE, FakeKube, Testbed, bearer, waiting_call

from kubechain_human_bridge.web.inbox.sessions import (
    LIFETIME,
    NoKeyError,
    Sessions,
    SessionTooLargeError,
    build_session,
)
from kubechain_human_bridge.web.inbox.users import TokenReviews, User, read_expiry, read_user

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
USER = User("alice", "uid-1", ("dev", "ops"), (("scopes", ("a", "b")),))


def jwt(**claims: object) -> str:
    part = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"e30.{part}.c2ln"


def test_a_session_is_read_back_by_whoever_has_the_key() -> None:
    session = build_session(USER, None, NOW)
    sealed = Sessions(lambda: KEY).seal(session)
    assert Sessions(lambda: KEY).open(sealed, NOW) == session
    assert Sessions(lambda: b"another key").open(sealed, NOW) is None


def test_a_session_ends() -> None:
    sessions = Sessions(lambda: KEY)
    sealed = sessions.seal(build_session(USER, None, NOW))
    assert sessions.open(sealed, NOW + LIFETIME - timedelta(seconds=1)) is not None
    assert sessions.open(sealed, NOW + LIFETIME) is None


def test_a_session_is_never_longer_than_its_token() -> None:
    assert build_session(USER, NOW + timedelta(minutes=5), NOW).expires_at == NOW + timedelta(minutes=5)
    assert build_session(USER, NOW + timedelta(days=5), NOW).expires_at == NOW + LIFETIME


def test_every_changed_character_breaks_the_signature() -> None:
    sessions = Sessions(lambda: KEY)
    sealed = sessions.seal(build_session(USER, None, NOW))
    for at in range(len(sealed) - 1):  # the last one holds spare bits
        changed = sealed[:at] + ("A" if sealed[at] != "A" else "B") + sealed[at + 1 :]
        assert sessions.open(changed, NOW) is None, at


@pytest.mark.parametrize("cookie", ["", "x", "a.b", "....", "é.é", "null.x"])
def test_what_is_no_session_is_none(cookie: str) -> None:
    assert Sessions(lambda: KEY).open(cookie, NOW) is None


def test_without_a_key_nothing_is_signed_and_nothing_is_good() -> None:
    sealed = Sessions(lambda: KEY).seal(build_session(USER, None, NOW))
    with pytest.raises(NoKeyError):
        Sessions(lambda: b"").seal(build_session(USER, None, NOW))
    assert Sessions(lambda: b"").open(sealed, NOW) is None


def test_too_many_groups_are_told_of() -> None:
    crowd = User("alice", groups=tuple(f"{n:x}-{hash(str(n)):x}" for n in range(1000)))
    with pytest.raises(SessionTooLargeError):
        Sessions(lambda: KEY).seal(build_session(crowd, None, NOW))


@pytest.mark.parametrize(
    "token", ["", "abc", "a.b.c", "a.!!.c", jwt(), jwt(exp="soon"), jwt(exp=10**30), "a." + "W10" + ".c"]
)
def test_a_token_without_an_end_has_none(token: str) -> None:
    assert read_expiry(token) is None


def test_a_token_says_when_it_ends() -> None:
    assert read_expiry(jwt(exp=NOW.timestamp())) == NOW


def test_a_user_needs_a_name() -> None:
    assert read_user({"groups": ["system:masters"]}) is None
    read = read_user({"username": "a", "uid": "1", "groups": ["g"], "extra": {"k": ["v"]}})
    assert read == User("a", "1", ("g",), (("k", ("v",)),))


async def test_what_can_be_no_token_is_not_asked_about() -> None:
    kube = FakeKube()
    reviews = TokenReviews(kube)
    for token in ("", "a" * 20_000, "tok\nen", "tökén"):
        assert await reviews.identify(token) is None
    assert not kube.asked


async def test_a_token_is_reviewed_once_in_a_few_seconds() -> None:
    kube = FakeKube()
    kube.tokens["good"] = {"username": "alice"}
    reviews = TokenReviews(kube)
    assert await reviews.identify("good") == await reviews.identify("good") == User("alice")
    assert len(kube.bodies("/tokenreviews")) == 1


async def test_a_browser_signs_in_and_out() -> None:
    bed = Testbed(waiting_call())
    async with bed.serve() as client:
        assert (await client.get("/api/v1/session")).status == 401
        answer = await client.post("/api/v1/session", json={"token": " alice\n"}, headers=PAGE)
        assert (answer.status, (await answer.json())["user"]) == (200, "alice")
        cookie = answer.cookies["kubechain-session"]
        assert (cookie["httponly"], cookie["samesite"], cookie["path"]) == (True, "Strict", "/")
        assert not cookie["secure"]
        assert (await client.get("/api/v1/requests")).status == 200
        assert (await client.delete("/api/v1/session", headers=PAGE)).status == 200
        assert (await client.get("/api/v1/requests")).status == 401


async def test_with_https_the_cookie_is_secure_and_bound_to_the_host() -> None:
    async with Testbed().serve("https://kubechain.example.com") as client:
        answer = await client.post("/api/v1/session", json={"token": "alice"}, headers=PAGE)
        assert answer.cookies["__Host-kubechain-session"]["secure"]


@pytest.mark.parametrize("body", [b"", b"{}", b'{"token": 7}', b"[]", b"\xff", b'{"token": "' + b"x" * 17_000 + b'"}'])
async def test_a_bad_sign_in_is_told_without_what_was_sent(body: bytes) -> None:
    async with Testbed().serve() as client:
        answer = await client.post("/api/v1/session", data=body, headers=PAGE)
        assert answer.status == 400
        assert "xxx" not in await answer.text()


async def test_signing_in_takes_the_header_of_our_page() -> None:
    async with Testbed().serve() as client:
        assert (await client.post("/api/v1/session", json={"token": "alice"})).status == 403


@pytest.mark.parametrize("header", ["Bearer wrong", "Basic alice", "alice", "Bearer", ""])
async def test_a_wrong_header_is_refused_even_beside_a_session(header: str) -> None:
    async with Testbed().serve() as client:
        await client.post("/api/v1/session", json={"token": "alice"}, headers=PAGE)
        answer = await client.get("/api/v1/requests", headers={"Authorization": header})
        assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, "Bearer")


async def test_until_the_key_is_known_no_session_is_over() -> None:
    bed = Testbed(waiting_call())
    async with bed.serve() as client:
        await client.post("/api/v1/session", json={"token": "alice"}, headers=PAGE)
        bed.key_known = False
        answer = await client.get("/api/v1/requests")
        assert (answer.status, "Try again" in (await answer.json())["error"]) == (503, True)
        assert (await client.post("/api/v1/session", json={"token": "alice"}, headers=PAGE)).status == 503
        assert (await client.get("/api/v1/requests", headers=bearer())).status == 200
        bed.key_known = True
        assert (await client.get("/api/v1/requests")).status == 200


async def test_an_api_server_that_is_away_is_no_refusal() -> None:
    bed = Testbed()
    bed.kube.away = True
    async with bed.serve() as client:
        assert (await client.get("/api/v1/requests", headers=bearer())).status == 503
