"""The roles of people, to be bound in the namespaces that are theirs.

``kubechain-view`` and ``kubechain-edit`` come with Kubernetes' own view, edit and admin. ``kubechain-approver`` comes
with admin only: who may write Tasks is not therefore the one who may approve what they do.
https://kubernetes.io/docs/reference/access-authn-authz/rbac/#aggregated-clusterroles
"""

from __future__ import annotations

from typing import Any

from kubechain_common.api.v1alpha1 import LLM, Agent, ContactChannel, MCPServer, Task, TaskRunToolCall
from kubechain_common.api.v1alpha1.meta import GROUP
from kubechain_common.policies.answers import DECIDE

APPROVER = "kubechain-approver"
VIEW = "kubechain-view"
EDIT = "kubechain-edit"

_ALL = [kind.crd.plural for kind in (LLM, Agent, Task, TaskRunToolCall, MCPServer, ContactChannel)]
_READ = ["get", "list", "watch"]


def build_user_roles() -> dict[str, list[dict[str, Any]]]:
    """File name -> objects."""
    return {
        f"{role['metadata']['name']}.yaml": [role] for role in (_build_view(), _build_edit(), build_approver_role())
    }


def _build_view() -> dict[str, Any]:
    return _build(VIEW, "view", {"apiGroups": [GROUP], "resources": _ALL, "verbs": _READ})


def _build_edit() -> dict[str, Any]:
    """Calls are made by a Task, not by people, who may only stop or delete them."""
    made = [plural for plural in _ALL if plural != TaskRunToolCall.crd.plural]
    written = ["create", "update", "patch", "delete", "deletecollection"]
    stopped = ["update", "patch", "delete", "deletecollection"]
    return _build(
        EDIT,
        "edit",
        {"apiGroups": [GROUP], "resources": made, "verbs": written},
        {"apiGroups": [GROUP], "resources": [TaskRunToolCall.crd.plural], "verbs": stopped},
    )


def build_approver_role() -> dict[str, Any]:
    """May see Tasks and their calls, look up until when a channel waits, and answer the calls that wait."""
    calls, tasks = TaskRunToolCall.crd.plural, Task.crd.plural
    channels = [ContactChannel.crd.plural, MCPServer.crd.plural]
    return _build(
        APPROVER,
        "admin",
        {"apiGroups": [GROUP], "resources": [calls, tasks], "verbs": _READ},
        {"apiGroups": [GROUP], "resources": channels, "verbs": ["get"]},
        {"apiGroups": [GROUP], "resources": [calls], "verbs": ["patch", DECIDE]},
    )


def _build(name: str, comes_with: str, *rules: dict[str, Any]) -> dict[str, Any]:
    labels = {
        "app.kubernetes.io/part-of": "kubechain",
        f"rbac.authorization.k8s.io/aggregate-to-{comes_with}": "true",
    }
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": name, "labels": labels},
        "rules": list(rules),
    }
