"""The admission policies of answers on a real API server, with real ServiceAccounts behind the requests.

What is applied is deploy/kustomize/policies, as a person would apply it; `kubechain up` has applied the same.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

pytestmark = pytest.mark.integration

Kubectl = Callable[..., "subprocess.CompletedProcess[str]"]
GROUP = "kubechain.humanlayer.dev"
POLICIES = Path(__file__).resolve().parents[2] / "deploy" / "kustomize" / "policies"
PATCHER = [{"apiGroups": [GROUP], "resources": ["taskruntoolcalls"], "verbs": ["get", "create", "patch", "update"]}]


class Place:
    """A namespace with ServiceAccounts in it, and calls to answer."""

    def __init__(self, kubectl: Kubectl, namespace: str) -> None:
        self.namespace = namespace
        self._kubectl = kubectl
        server = json.loads(self.admin("config", "view", "-o", "json", "--raw").stdout)["clusters"][0]["cluster"]
        self._server = server

    def admin(self, *arguments: str, manifest: dict[str, Any] | None = None) -> subprocess.CompletedProcess[str]:
        done = self._kubectl("-n", self.namespace, *arguments, manifest=manifest)
        assert done.returncode == 0, done.stderr
        return done

    def add_user(self, name: str, *roles: str) -> User:
        """A ServiceAccount with these ClusterRoles in this namespace."""
        self.admin("create", "serviceaccount", name)
        for role in roles:
            account = f"--serviceaccount={self.namespace}:{name}"
            self.admin("create", "rolebinding", f"{name}-{role}", f"--clusterrole={role}", account)
        return User(self, name, self.admin("create", "token", name).stdout.strip())

    def add_call(self, name: str, tool_type: str = "MCP", **spec: Any) -> None:
        self.admin("create", "-f", "-", manifest=build_call(name, tool_type, **spec))

    def spec_of(self, name: str) -> dict[str, Any]:
        spec: dict[str, Any] = json.loads(self.admin("get", "taskruntoolcall", name, "-o", "json").stdout)["spec"]
        return spec


class User:
    def __init__(self, place: Place, name: str, token: str) -> None:
        self.full_name = f"system:serviceaccount:{place.namespace}:{name}"
        self._place = place
        self._token = token

    def kubectl(self, *arguments: str, manifest: dict[str, Any] | None = None) -> subprocess.CompletedProcess[str]:
        """kubectl as this user alone: the certificate of the kubeconfig would come before a token."""
        server = self._place._server
        who = ("--kubeconfig=/dev/null", f"--server={server['server']}", f"--token={self._token}")
        trust = ("--insecure-skip-tls-verify", "-n", self._place.namespace)
        return self._place._kubectl(*who, *trust, *arguments, manifest=manifest)

    def patch(self, call: str, **spec: Any) -> subprocess.CompletedProcess[str]:
        return self.kubectl("patch", "taskruntoolcall", call, "--type=merge", "-p", json.dumps({"spec": spec}))


def build_call(name: str, tool_type: str = "MCP", **spec: Any) -> dict[str, Any]:
    full = {
        "toolCallId": "call_1",
        "taskRunRef": {"name": "t"},
        "toolRef": {"name": "fetch__fetch"},
        "toolType": tool_type,
        "arguments": "{}",
        **spec,
    }
    return {"apiVersion": f"{GROUP}/v1alpha1", "kind": "TaskRunToolCall", "metadata": {"name": name}, "spec": full}


@pytest.fixture(scope="module")
def applied(kubectl: Kubectl) -> Kubectl:
    """The policies of this tree, in force: the ones before them are gone from the API server's mind."""
    done = kubectl("apply", "--server-side", "--force-conflicts", "-k", str(POLICIES))
    assert done.returncode == 0, done.stderr
    return kubectl


@pytest.fixture(scope="module")
def roles(applied: Kubectl) -> Iterator[Kubectl]:
    """patcher may write calls, bridge may also answer for others; kubechain-approver comes with the policies."""
    names = {"patcher": PATCHER, "bridge": [*PATCHER, {**PATCHER[0], "verbs": ["decide", "decide-for"]}]}
    for name, rules in names.items():
        role = {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": f"test-{name}"},
            "rules": rules,
        }
        assert applied("apply", "-f", "-", manifest=role).returncode == 0
    yield applied
    applied("delete", "clusterrole", *(f"test-{name}" for name in names))


@pytest.fixture
def place(roles: Kubectl) -> Iterator[Place]:
    name = f"answers-{uuid4().hex[:8]}"
    assert roles("create", "namespace", name).returncode == 0
    yield Place(roles, name)
    roles("delete", "namespace", name, "--wait=false")


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
    forged = {"manager": "x", "operation": "Update", "apiVersion": f"{GROUP}/v1alpha1", "time": at}
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
    refused = place._kubectl("-n", place.namespace, "patch", "trtc", "c", "--type=merge", "-p", body)
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
