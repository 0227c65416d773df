"""Every verb on every kind, asked of a real API server for each service account, is what docs/rbac.md says."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from kubechain_common.kube.client import KubeClient
from kubechain_common.policies.rbac import NAMESPACE, RIGHTS, build_service_roles
from kubechain_common.policies.rbac.docs import AT_HOME, EVERYWHERE, HEAD

pytestmark = pytest.mark.integration

DOCS = Path(__file__).resolve().parents[2] / "docs" / "rbac.md"
VERBS = ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection")
SPECIAL = ("decide", "decide-for", "impersonate", "bind", "escalate", "approve", "sign", "use", "*")
AT_ONCE = 32


@dataclass(frozen=True)
class Question:
    """May somebody do this? ``group`` and ``resource`` may be ``*``."""

    namespace: str
    group: str
    resource: str
    verb: str
    name: str = ""


@cache
def read_table() -> list[dict[str, str]]:
    """The rows of the page."""
    lines = [line for line in DOCS.read_text().splitlines() if line.startswith("| ")]
    start = lines.index(f"| {' | '.join(HEAD)} |") + 2
    rows = []
    for line in lines[start:]:
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) != len(HEAD):
            break
        rows.append(dict(zip(HEAD, cells, strict=True)))
    return rows


def is_allowed(service: str, question: Question) -> bool:
    """By the page."""
    return any(
        row["service account"] == service
        and row["where"] in (EVERYWHERE, question.namespace)
        and (row["API group"], row["resource"]) == (question.group, question.resource)
        and question.verb in row["verbs"].split(", ")
        and (not row["of these names"] or question.name in row["of these names"].split(", "))
        for row in read_table()
    )


async def find_resources(kube: KubeClient) -> list[tuple[str, str]]:
    """(group, resource) of everything that the API server serves, subresources included."""
    groups = (await kube.request("GET", "/apis"))["groups"]
    paths = [("", "/api/v1")]
    paths += [(group["name"], f"/apis/{version['groupVersion']}") for group in groups for version in group["versions"]]
    found: dict[tuple[str, str], None] = {}
    for group, path in paths:
        found |= dict.fromkeys((group, resource["name"]) for resource in (await kube.request("GET", path))["resources"])
    return list(found)


def build_questions(resources: list[tuple[str, str]]) -> Iterator[Question]:
    told = list(dict.fromkeys((row["API group"], row["resource"]) for row in read_table()))
    for namespace, asked in ((AT_HOME, [*resources, ("*", "*")]), ("elsewhere", told)):
        for group, resource in asked:
            special = SPECIAL if group in ("kubechain.humanlayer.dev", "rbac.authorization.k8s.io", "*") else ()
            for verb in (*VERBS, *special):
                yield Question(namespace, group, resource, verb)
    names = {name for row in read_table() for name in row["of these names"].split(", ") if name}
    for name in (*names, "kubechain-of-somebody-else"):
        for group, resource in (("", "secrets"), ("", "configmaps"), ("coordination.k8s.io", "leases")):
            for verb in VERBS:
                yield Question(AT_HOME, group, resource, verb, name)


# What everybody who is signed in may do: https://kubernetes.io/docs/reference/access-authn-authz/rbac/#discovery-roles
EVERYBODYS = {
    ("authorization.k8s.io", "selfsubjectaccessreviews", "create"),
    ("authorization.k8s.io", "selfsubjectrulesreviews", "create"),
    ("authentication.k8s.io", "selfsubjectreviews", "create"),
}


@pytest.fixture(scope="session")
def roles_are_bound(kubectl: Any) -> None:
    """The services' roles are bound."""
    kubectl("create", "namespace", NAMESPACE)
    objects = [obj for service in RIGHTS for file in build_service_roles(service).values() for obj in file]
    everything = {"apiVersion": "v1", "kind": "List", "items": objects}
    done = kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", manifest=everything)
    assert done.returncode == 0, done.stderr


@pytest.mark.timeout(180)
@pytest.mark.usefixtures("roles_are_bound")
@pytest.mark.parametrize("service", RIGHTS)
async def test_a_service_may_do_what_the_page_says_and_nothing_else(kube: KubeClient, service: str) -> None:
    account = f"system:serviceaccount:{NAMESPACE}:{service}"
    groups = ["system:serviceaccounts", f"system:serviceaccounts:{NAMESPACE}", "system:authenticated"]
    at_once = asyncio.Semaphore(AT_ONCE)

    async def ask(question: Question) -> bool:
        attributes = {
            "namespace": question.namespace,
            "verb": question.verb,
            "group": question.group,
            "resource": question.resource.partition("/")[0],
            "subresource": question.resource.partition("/")[2],
            "name": question.name,
        }
        spec = {"user": account, "groups": groups, "resourceAttributes": attributes}
        body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
        async with at_once:
            answer = await kube.request("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", body=body)
        return bool(answer["status"]["allowed"])

    questions = list(build_questions(await find_resources(kube)))
    assert len(questions) > 1200, "most of the API was left out"
    answers = await asyncio.gather(*map(ask, questions))
    allowed = {q for q, yes in zip(questions, answers, strict=True) if yes}
    allowed = {q for q in allowed if (q.group, q.resource, q.verb) not in EVERYBODYS}
    assert allowed == {q for q in questions if is_allowed(service, q)}


def test_the_page_knows_every_service_and_no_right_to_list_secrets() -> None:
    rows = read_table()
    assert {row["service account"] for row in rows} == set(RIGHTS)
    assert all(row["why"] for row in rows)
    secrets = [row for row in rows if row["resource"] == "secrets"]
    assert secrets
    assert not any({"list", "*"} & set(row["verbs"].split(", ")) for row in secrets)


async def test_people_get_their_rights_with_those_of_kubernetes(
    applied: Any, kube: KubeClient, eventually: Any
) -> None:
    namespace = f"people-{uuid4().hex[:8]}"
    assert applied("create", "namespace", namespace).returncode == 0
    for role in ("view", "edit", "admin"):
        assert (
            applied(
                "create", "rolebinding", role, "-n", namespace, f"--clusterrole={role}", f"--user={role}"
            ).returncode
            == 0
        )

    async def may(user: str, verb: str, resource: str) -> bool:
        attributes = {
            "namespace": namespace,
            "verb": verb,
            "group": "kubechain.humanlayer.dev",
            "resource": resource,
        }
        body = {"kind": "SubjectAccessReview", "spec": {"user": user, "resourceAttributes": attributes}}
        answer = await kube.request("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", body=body)
        return bool(answer["status"]["allowed"])

    async def are_aggregated() -> bool:
        return (
            await may("view", "list", "tasks")
            and await may("edit", "create", "tasks")
            and await may("admin", "decide", "taskruntoolcalls")
        )

    await eventually(are_aggregated)
    kinds = ("llms", "agents", "tasks", "taskruntoolcalls", "mcpservers", "contactchannels")
    for kind in kinds:
        assert [await may(user, "watch", kind) for user in ("view", "edit", "admin")] == [True, True, True]
        assert [await may(user, "patch", kind) for user in ("view", "edit", "admin")] == [False, True, True]
    assert [await may(user, "create", "taskruntoolcalls") for user in ("view", "edit", "admin")] == [False] * 3
    assert [await may(user, "decide", "taskruntoolcalls") for user in ("view", "edit", "admin")] == [False, False, True]
    assert [await may(user, "decide-for", "taskruntoolcalls") for user in ("view", "edit", "admin")] == [False] * 3
    assert applied("delete", "namespace", namespace, "--wait=false").returncode == 0
