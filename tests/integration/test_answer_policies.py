"""The admission policies of answers on a real API server, with real ServiceAccounts behind the requests.

What is applied is deploy/kustomize/policies, as a person would apply it; `kubechain up` has applied the same.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.integration.people import GROUP, Place, User, build_call

pytestmark = pytest.mark.integration

Kubectl = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def approver(place: Place) -> User:
    return place.add_user("alice", "kubechain-approver")


def is_recent(moment: str) -> bool:
    return abs(datetime.now(UTC) - datetime.fromisoformat(moment)) < timedelta(minutes=1)


@pytest.mark.parametrize(
    ("tool_type", "answer"),
    [("MCP", {"decision": {"approved": True}}), ("HumanContact", {"response": {"message": "blue"}})],
)
def test_a_bare_answer_gets_its_author_and_its_time(
    place: Place, approver: User, tool_type: str, answer: dict[str, Any]
) -> None:
    place.add_call("c", tool_type)
    done = approver.patch("c", **answer)
    assert done.returncode == 0, done.stderr
    ((field, given),) = answer.items()
    stored = place.spec_of("c")[field]
    assert stored == {**given, "by": approver.full_name, "at": stored["at"]}
    assert is_recent(stored["at"])


@pytest.mark.parametrize(
    ("tool_type", "answer"),
    [("MCP", {"decision": {"approved": True}}), ("HumanContact", {"response": {"message": "blue"}})],
)
def test_without_the_verb_no_answer_is_taken(place: Place, tool_type: str, answer: dict[str, Any]) -> None:
    place.add_call("c", tool_type)
    mallory = place.add_user("mallory", "test-patcher")
    refused = mallory.patch("c", **answer)
    assert refused.returncode != 0
    assert f"{mallory.full_name} may not answer tool calls in namespace {place.namespace}" in refused.stderr
    assert "takes the verb decide on taskruntoolcalls" in refused.stderr
    assert answer.keys().isdisjoint(place.spec_of("c"))


def test_without_the_verb_everything_else_may_be_written(place: Place) -> None:
    """As task-controller does: it creates calls, cancels them and writes their metadata."""
    controller = place.add_user("task-controller", "test-patcher")
    made = controller.kubectl("create", "-f", "-", manifest=build_call("c"))
    assert made.returncode == 0, made.stderr
    cancelled = controller.patch("c", cancel=True)
    assert cancelled.returncode == 0, cancelled.stderr
    assert controller.kubectl("label", "taskruntoolcall", "c", "a=b").returncode == 0


def test_a_call_is_not_created_with_an_answer_in_it(place: Place, approver: User) -> None:
    controller = place.add_user("task-controller", "test-patcher")
    refused = controller.kubectl("create", "-f", "-", manifest=build_call("c", decision={"approved": True}))
    assert "may not answer tool calls" in refused.stderr


def test_an_answered_call_stays_writable_for_those_who_may_not_answer(place: Place, approver: User) -> None:
    place.add_call("c")
    assert approver.patch("c", decision={"approved": True}).returncode == 0
    controller = place.add_user("task-controller", "test-patcher")
    assert controller.patch("c", cancel=True).returncode == 0


def test_nobody_answers_in_somebody_elses_name(place: Place, approver: User) -> None:
    place.add_call("c")
    refused = approver.patch("c", decision={"approved": True, "by": "bob"})
    assert f"by has to be {approver.full_name}, who gives this answer" in refused.stderr
    assert "decision" not in place.spec_of("c")
    done = approver.patch("c", decision={"approved": True, "by": approver.full_name, "via": "cli"})
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("by_hours", [-24, 24])
def test_nobody_dates_an_answer_back_or_ahead(place: Place, approver: User, by_hours: int) -> None:
    place.add_call("c")
    at = (datetime.now(UTC) + timedelta(hours=by_hours)).strftime("%Y-%m-%dT%H:%M:%SZ")
    refused = approver.patch("c", decision={"approved": True, "at": at})
    assert "at has to be the time of now, within 5 minutes: leave it out" in refused.stderr
    forged: dict[str, Any] = {"manager": "x", "operation": "Update", "apiVersion": f"{GROUP}/v1alpha1", "time": at}
    forged |= {"fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:decision": {"f:approved": {}}}}}
    body = {"metadata": {"managedFields": [forged]}, "spec": {"decision": {"approved": True, "at": at}}}
    refused = approver.kubectl("patch", "taskruntoolcall", "c", "--type=merge", "-p", json.dumps(body))
    assert "at has to be the time of now" in refused.stderr
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert approver.patch("c", decision={"approved": True, "at": now}).returncode == 0


def test_nobody_says_that_an_answer_came_by_a_road_that_it_did_not_take(place: Place, approver: User) -> None:
    place.add_call("c")
    refused = approver.patch("c", decision={"approved": True, "via": "humanlayer"})
    assert "via may be cli or absent" in refused.stderr


def test_who_may_answer_for_others_writes_down_who_it_was(place: Place) -> None:
    place.add_call("c")
    bridge = place.add_user("human-bridge", "test-bridge")
    given = {"approved": False, "by": "bob@example.com", "via": "link", "at": "2026-01-02T03:04:05Z", "comment": "no"}
    done = bridge.patch("c", decision=given)
    assert done.returncode == 0, done.stderr
    assert place.spec_of("c")["decision"] == given


def test_an_answer_names_its_author_even_if_an_administrator_gives_it(place: Place) -> None:
    place.add_call("c")
    body = json.dumps({"spec": {"decision": {"approved": True, "by": ""}}})
    refused = place.kubectl("-n", place.namespace, "patch", "trtc", "c", "--type=merge", "-p", body)
    assert "an answer says who gives it: set by to kubechain:admin" in refused.stderr


def test_the_right_holds_in_its_own_namespace(place: Place, approver: User, roles: Kubectl) -> None:
    other = f"{place.namespace}-other"
    assert roles("create", "namespace", other).returncode == 0
    try:
        elsewhere = Place(roles, other)
        elsewhere.add_call("c")
        account = f"--serviceaccount={place.namespace}:alice"
        elsewhere.admin("create", "rolebinding", "alice", "--clusterrole=test-patcher", account)
        refused = approver.kubectl(
            "patch", "-n", other, "trtc", "c", "--type=merge", "-p", '{"spec":{"decision":{"approved":true}}}'
        )
        assert f"may not answer tool calls in namespace {other}" in refused.stderr
    finally:
        roles("delete", "namespace", other, "--wait=false")


def test_the_first_answer_stays(place: Place, approver: User) -> None:
    place.add_call("c")
    assert approver.patch("c", decision={"approved": True}).returncode == 0
    late = place.add_user("bob", "kubechain-approver").patch("c", decision={"approved": False})
    assert "decision was given already and can not be changed" in late.stderr
    assert place.spec_of("c")["decision"]["by"] == approver.full_name
