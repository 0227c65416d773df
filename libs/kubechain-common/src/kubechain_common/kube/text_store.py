"""Texts of a Task that have no other home: immutable ConfigMaps that belong to the Task and go with it.

The name holds a hash of the text, so storing it again after a crash finds it there. A ConfigMap of that name which is
not the Task's, or says something else, is never taken for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kubechain_common.api.names import tool_call_labels
from kubechain_common.api.v1alpha1 import Task
from kubechain_common.kube.client import KubeClient
from kubechain_common.kube.errors import AlreadyExistsError
from kubechain_common.kube.paths import core_path


async def store_text(kube: KubeClient, task: Task, name: str, key: str, text: str) -> None:
    """Keeps the text for as long as the Task lives.

    Raises InvalidError where it does not fit, AlreadyExistsError where the name is taken, ForbiddenError where a right
    or quota is missing.
    """
    body = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": name,
            "labels": tool_call_labels(task.name, task.uid),
            "ownerReferences": [task.build_owner_reference().to_wire()],
        },
        "immutable": True,
        "data": {key: text},
    }
    try:
        await kube.request("POST", core_path("configmaps", task.namespace), body=body)
    except AlreadyExistsError:
        found = await kube.request("GET", core_path("configmaps", task.namespace, name))
        if not belongs_to(found, task.uid) or (found.get("data") or {}).get(key) != text:
            raise AlreadyExistsError(f'ConfigMap "{name}" exists already and is not the Task\'s: delete it') from None


def belongs_to(raw: Mapping[str, Any], task_uid: str) -> bool:
    """Whether an ownerReference of the object names the Task of this uid."""
    owners = (raw.get("metadata") or {}).get("ownerReferences") or ()
    return any(owner.get("kind") == "Task" and owner.get("uid") == task_uid for owner in owners)
