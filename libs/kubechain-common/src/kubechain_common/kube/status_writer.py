"""write_status: the one way a controller changes ``.status``.

The patch holds only what differs, so a small change of a large object is a small request; it is guarded by the
resourceVersion that the decision was made on; and the answer goes into the informer, so the next reconcile reads its
own write.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from kubechain_common.api.v1alpha1.meta import KubeModel, Resource
from kubechain_common.kube.client import KubeClient
from kubechain_common.kube.informer import Informer

R = TypeVar("R", bound=Resource)


async def write_status(client: KubeClient, informer: Informer[R], obj: R, new_status: KubeModel) -> R:
    """Makes the object's status equal to ``new_status``; returns the object as the API server has it now.

    Nothing is sent when nothing differs. Raises ConflictError when the object changed meanwhile (read again and
    decide again), NotFoundError when it is gone, TooLargeError when it would not fit.
    """
    patch = build_status_patch(_status_of(obj), new_status)
    if not patch:
        return obj
    written = await client.patch_status(obj, patch)
    informer.observe(written)
    return written


def build_status_patch(old: KubeModel, new: KubeModel) -> dict[str, Any]:
    """The JSON merge patch from ``old``, as read from the API server, to ``new``; empty when there is nothing to write.

    Fields that share their value (the usual outcome of ``model_copy``) are told apart by identity and never serialised.
    A field at its default that the server does not have is written only if it was set on purpose.
    """
    changed = {field for field in type(new).model_fields if _differs(old, new, field)}
    if not changed:
        return {}
    return merge_diff(_dump(old, changed & old.model_fields_set), _dump(new, changed))


def merge_diff(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON merge patch (RFC 7386) from ``old`` to ``new``: removed keys are null, lists are replaced whole."""
    patch: dict[str, Any] = {key: None for key in old if key not in new}
    for key, value in new.items():
        before = old.get(key)
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            if inner := merge_diff(before, value):
                patch[key] = inner
        elif key not in old or before != value:
            patch[key] = value
    return patch


def _differs(old: KubeModel, new: KubeModel, field: str) -> bool:
    if field not in old.model_fields_set:
        return field in new.model_fields_set
    before, after = getattr(old, field), getattr(new, field)
    return before is not after and before != after


def _dump(model: KubeModel, fields: set[str]) -> dict[str, Any]:
    return model.model_dump(mode="json", by_alias=True, exclude_none=True, include=fields)


def _status_of(obj: Resource) -> KubeModel:
    status: KubeModel = getattr(obj, "status")  # noqa: B009 - every kind declares its own status type
    return status
