"""The page's API: who sees what, and what becomes of an answer."""

from __future__ import annotations

import io
import re
from typing import Any
from urllib.parse import urljoin

import pytest
from inbox_testbed import PAGE, Testbed, answered_call, bearer, waiting_call

from kubechain_common.kube.errors import KubeError
from kubechain_human_bridge.web.inbox.api import LISTED, check_arguments
from kubechain_human_bridge.web.inbox.responses import Refusal
from kubechain_human_bridge.web.inbox.rights import Access, Rights
from kubechain_human_bridge.web.inbox.users import User

CALL = "/api/v1/requests/default/call"


def decisions(bed: Testbed) -> list[Any]:
    return [body["spec"] for method, _, body in bed.kube.asked if method == "PATCH"]


# --- seeing ---


async def test_a_list_holds_what_the_user_may_list() -> None:
    bed = Testbed(waiting_call("mine"), waiting_call("other", namespace="foreign"))
    async with bed.serve() as client:
        listed = await (await client.get("/api/v1/requests", headers=bearer())).json()
    assert [(r["namespace"], r["name"]) for r in listed["requests"]] == [("default", "mine")]
    assert listed["total"] == 1


async def test_who_may_list_everything_sees_everything() -> None:
    bed = Testbed(waiting_call("mine"), waiting_call("other", namespace="foreign"))
    bed.kube.rights.add(("alice", "list", ""))
    async with bed.serve() as client:
        listed = await (await client.get("/api/v1/requests", headers=bearer())).json()
    assert listed["total"] == 2


async def test_a_long_list_is_cut_and_says_so() -> None:
    bed = Testbed(*(waiting_call(f"call-{n}") for n in range(LISTED + 7)))
    async with bed.serve() as client:
        listed = await (await client.get("/api/v1/requests", headers=bearer())).json()
    assert (len(listed["requests"]), listed["total"]) == (LISTED, LISTED + 7)


async def test_a_request_is_shown_whole() -> None:
    bed = Testbed(waiting_call(arguments='{"text": "' + "x" * 5000 + '"}'))
    async with bed.serve() as client:
        shown = await (await client.get(CALL, headers=bearer("viewer"))).json()
    assert len(shown["arguments"]) > 5000
    assert (shown["waiting"], shown["mayDecide"], shown["kind"]) == (True, False, "approval")
    assert "may not read Task" not in shown["conversation"]["missing"]  # viewer may get tasks, and there is none
    assert "does not exist" in shown["conversation"]["missing"]


async def test_who_may_not_read_the_task_does_not_see_its_conversation() -> None:
    bed = Testbed(waiting_call())
    bed.kube.hidden.add(("viewer", "tasks"))
    async with bed.serve() as client:
        shown = await (await client.get(CALL, headers=bearer("viewer"))).json()
    assert shown["conversation"]["missing"] == 'You may not read Task "hello", so its conversation is not shown.'
    assert shown["conversation"]["messages"] == []


async def test_what_must_not_be_seen_is_not_even_looked_up() -> None:
    bed = Testbed(waiting_call(namespace="foreign"))
    async with bed.serve() as client:
        for name in ("call", "no-such-call"):
            answer = await client.get(f"/api/v1/requests/foreign/{name}", headers=bearer())
            assert answer.status == 403
    assert not [path for _, path, _ in bed.kube.asked if path.endswith(("/call", "/no-such-call"))]


@pytest.mark.parametrize("path", ["default/gone", "default/..", "default/a%2Fb", "default/%00"])
async def test_a_request_that_is_not_there(path: str) -> None:
    async with Testbed().serve() as client:
        assert (await client.get(f"/api/v1/requests/{path}", headers=bearer())).status in (403, 404)


async def test_history_tells_both_versions_and_is_read_once() -> None:
    bed = Testbed(answered_call(arguments='{"a": 2}', comment="fine"))
    async with bed.serve() as client:
        for _ in range(2):
            told = await (await client.get("/api/v1/history", headers=bearer())).json()
    (entry,) = told["decisions"]
    assert entry["arguments"] == "{}"
    assert entry["answer"] == {
        "by": "alice", "via": "page", "at": "2026-11-23T12:01:00Z", "approved": True, "comment": "fine",
        "arguments": '{"a": 2}',
    }  # fmt: skip
    assert len(bed.kube.bodies("/taskruntoolcalls/call")) == 1


async def test_history_keeps_to_the_rights() -> None:
    bed = Testbed(answered_call())
    bed.kube.tokens["stranger"] = {"username": "stranger"}
    async with bed.serve() as client:
        told = await (await client.get("/api/v1/history", headers=bearer("stranger"))).json()
    assert told == {"decisions": []}


async def test_the_policy_is_strict_on_every_file() -> None:
    async with Testbed().serve() as client:
        wanted, seen = ["/"], set()
        while wanted:
            seen.add(path := wanted.pop())
            answer = await client.get(path)
            policy = answer.headers["Content-Security-Policy"]
            assert (answer.status, "unsafe" in policy, "default-src 'none'" in policy) == (200, False, True)
            text = await answer.text()
            assert "innerHTML" not in text
            assert "style=" not in text
            named = re.findall(r'(?:src|href|from) ?=?"(/[^"]+|\./[^"]+)"', text)
            wanted += {urljoin(path, name) for name in named} - seen - set(wanted)
        assert {"/js/inbox.js", "/js/request.js", "/inbox.css", "/icon.svg"} <= seen


# --- answering ---


async def test_a_decision_carries_who_when_and_which_road() -> None:
    bed = Testbed(waiting_call())
    body = {"uid": "uid-call", "approved": True, "comment": "ok", "arguments": '{"n": 12345678901234567890}'}
    async with bed.serve() as client:
        answer = await client.post(f"{CALL}/decision", json=body, headers=bearer())
        assert (answer.status, await answer.json()) == (200, {"outcome": "Accepted", "message": "Approved by alice"})
    (spec,) = decisions(bed)
    assert spec["decision"].pop("at")
    assert spec == {
        "decision": {"approved": True, "comment": "ok", "by": "alice", "via": "page", "arguments": body["arguments"]}
    }


async def test_an_object_is_taken_for_arguments_too() -> None:
    bed = Testbed(waiting_call())
    async with bed.serve() as client:
        await client.post(f"{CALL}/decision", json={"approved": True, "arguments": {"n": "é"}}, headers=bearer())
    assert decisions(bed)[0]["decision"]["arguments"] == '{"n": "é"}'


async def test_a_question_takes_a_response_only() -> None:
    bed = Testbed(waiting_call(toolType="HumanContact", arguments='{"message": "Sure?"}'))
    async with bed.serve() as client:
        assert (await client.post(f"{CALL}/decision", json={"approved": True}, headers=bearer())).status == 409
        assert (await client.post(f"{CALL}/response", json={"message": "Yes"}, headers=bearer())).status == 200
    assert decisions(bed)[0]["response"]["message"] == "Yes"


async def test_the_second_is_told_who_was_first() -> None:
    bed = Testbed(answered_call(by="bob", via=None))
    async with bed.serve() as client:
        answer = await client.post(f"{CALL}/decision", json={"approved": False}, headers=bearer())
        assert (answer.status, "Approved by bob at 2026-11-23" in (await answer.json())["error"]) == (409, True)
    assert not decisions(bed)


async def test_another_call_of_the_same_name_is_not_answered() -> None:
    bed = Testbed(waiting_call())
    async with bed.serve() as client:
        body = {"uid": "uid-of-an-earlier-one", "approved": True}
        assert (await client.post(f"{CALL}/decision", json=body, headers=bearer())).status == 404
    assert not decisions(bed)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400),
        ({"approved": "maybe"}, 400),
        ({"approved": True, "by": "mallory"}, 400),
        ({"approved": True, "arguments": "{"}, 422),
        ({"approved": True, "arguments": "[]"}, 422),
        ({"approved": True, "uid": "../x"}, 404),
        ({"approved": True, "comment": "x" * 70_000}, 400),
    ],
)
async def test_a_bad_decision_is_refused(body: dict[str, Any], status: int) -> None:
    bed = Testbed(waiting_call())
    async with bed.serve() as client:
        assert (await client.post(f"{CALL}/decision", json=body, headers=bearer())).status == status
    assert not decisions(bed)


async def test_more_than_a_megabyte_is_refused() -> None:
    bed = Testbed(waiting_call(toolType="HumanContact", arguments='{"message": "Sure?"}'))
    async with bed.serve() as client:
        body = io.BytesIO(b'{"message": "' + b"x" * (1 << 20) + b'"}')
        assert (await client.post(f"{CALL}/response", data=body, headers=bearer())).status == 413


@pytest.mark.parametrize("text", ["NaN", '{"a": NaN}', "{} {}", "[" * 100_000, "1" * 5000, ""])
def test_what_is_no_json_object_is_no_arguments(text: str) -> None:
    with pytest.raises(Refusal):
        check_arguments(text)


async def test_without_the_right_nothing_changes_and_it_is_told() -> None:
    bed = Testbed(waiting_call())
    async with bed.serve() as client:
        answer = await client.post(f"{CALL}/decision", json={"approved": True}, headers=bearer("viewer"))
        assert answer.status == 403
    assert not decisions(bed)
    assert bed.audit.told == [("call", "viewer", "page")]


async def test_without_a_token_nothing_changes_and_it_is_told() -> None:
    bed = Testbed(waiting_call())
    async with bed.serve() as client:
        assert (await client.post(f"{CALL}/decision", json={"approved": True}, headers=PAGE)).status == 401
        assert (await client.post("/api/v1/requests/default/unknown/decision", headers=PAGE)).status == 401
    assert not decisions(bed)
    assert bed.audit.told == [("call", "", "page"), ("", "", "page")]
    assert not bed.kube.asked  # strangers do not make us ask


async def test_a_cookie_without_the_header_of_our_page_answers_nothing() -> None:
    bed = Testbed(waiting_call())
    async with bed.serve() as client:
        await client.post("/api/v1/session", json={"token": "alice"}, headers=PAGE)
        assert (await client.post(f"{CALL}/decision", json={"approved": True})).status == 403
        assert not decisions(bed)
        assert (await client.post(f"{CALL}/decision", json={"approved": True}, headers=PAGE)).status == 200


async def test_a_right_that_was_taken_away_counts_at_once() -> None:
    bed = Testbed(waiting_call())
    async with bed.serve() as client:
        assert (await (await client.get(CALL, headers=bearer())).json())["mayDecide"] is True
        bed.kube.rights.discard(("alice", "decide", "default"))
        assert (await client.post(f"{CALL}/decision", json={"approved": True}, headers=bearer())).status == 403


async def test_the_review_names_the_user_as_the_api_server_did() -> None:
    bed = Testbed()
    user = User("alice", "uid-1", ("dev",), (("scopes", ("a",)),))
    await Rights(bed.kube).may(user, Access("decide", "default", "call"))
    assert bed.kube.bodies("/subjectaccessreviews")[0]["spec"] == {
        "user": "alice",
        "uid": "uid-1",
        "groups": ["dev"],
        "extra": {"scopes": ["a"]},
        "resourceAttributes": {
            "group": "kubechain.humanlayer.dev", "resource": "taskruntoolcalls", "verb": "decide",
            "namespace": "default", "name": "call",
        },
    }  # fmt: skip


async def test_a_review_that_fails_allows_nothing() -> None:
    bed = Testbed()
    bed.kube.away = True
    with pytest.raises(KubeError):
        await Rights(bed.kube).may(User("alice"), Access("list"))


async def test_a_right_that_we_lack_is_not_blamed_on_the_user() -> None:
    bed = Testbed(waiting_call())
    bed.kube.may_patch = False
    async with bed.serve() as client:
        answer = await client.post(f"{CALL}/decision", json={"approved": True}, headers=bearer())
        assert (answer.status, "KubeChain itself" in (await answer.json())["error"]) == (500, True)
    assert not bed.audit.told
