"""Texts of a Task that have no other home (images among them): immutable ConfigMaps that belong to it and go with it.

The name holds a hash of the text, so storing it again after a crash finds it there. A ConfigMap of that name which is
not the Task's, or says something else, is never taken for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kubechain_common.api.names import tool_call_labels
from kubechain_common.api.stored_text import StoredText
from kubechain_common.api.v1alpha1.meta import OwnerReference
from kubechain_common.kube.client import KubeClient
from kubechain_common.kube.errors import AlreadyExistsError
from kubechain_common.kube.paths import core_path


async def store_text(kube: KubeClient, namespace: str, owner: OwnerReference, text: StoredText) -> None:
    """Keeps the text for as long as ``owner``, its Task, lives.

    Raises InvalidError where it does not fit, AlreadyExistsError where the name is taken, ForbiddenError where a right
    or quota is missing.
    """
    body = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": text.name,
            "labels": tool_call_labels(owner.name, owner.uid),
            "ownerReferences": [owner.to_wire()],
        },
        "immutable": True,
        "data": {text.key: text.text},
    }
    try:
        await kube.request("POST", core_path("configmaps", namespace), body=body)
    except AlreadyExistsError:
        found = await kube.request("GET", core_path("configmaps", namespace, text.name))
        if not belongs_to(found, owner.uid) or (found.get("data") or {}).get(text.key) != text.text:
            raise AlreadyExistsError(
                f'ConfigMap "{text.name}" exists already and is not the Task\'s: delete it'
            ) from None


def belongs_to(raw: Mapping[str, Any], task_uid: str) -> bool:
    """Whether an ownerReference of the object names the Task of this uid."""
    owners = (raw.get("metadata") or {}).get("ownerReferences") or ()
    return any(owner.get("kind") == "Task" and owner.get("uid") == task_uid for owner in owners)
