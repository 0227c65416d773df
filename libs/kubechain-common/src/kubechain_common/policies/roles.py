"""The role of people who answer, to be bound in the namespaces whose calls are theirs to decide."""

from __future__ import annotations

from typing import Any

from kubechain_common.api.v1alpha1 import ContactChannel, MCPServer, Task, TaskRunToolCall
from kubechain_common.api.v1alpha1.meta import GROUP
from kubechain_common.policies.answers import DECIDE

APPROVER = "kubechain-approver"


def build_approver_role() -> dict[str, Any]:
    """May see Tasks and their calls, look up until when a channel waits, and answer the calls that wait."""
    calls, tasks = TaskRunToolCall.crd.plural, Task.crd.plural
    channels = [ContactChannel.crd.plural, MCPServer.crd.plural]
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": APPROVER},
        "rules": [
            {"apiGroups": [GROUP], "resources": [calls, tasks], "verbs": ["get", "list", "watch"]},
            {"apiGroups": [GROUP], "resources": channels, "verbs": ["get"]},
            {"apiGroups": [GROUP], "resources": [calls], "verbs": ["patch", DECIDE]},
        ],
    }
