"""write_status: the one way a controller changes ``.status``.

It is replaced as a whole, and only where something differs; the update is guarded by the resourceVersion that the
decision was made on; and the answer goes into the informer, so the next reconcile reads its own write.
"""

from __future__ import annotations

from typing import Any, TypeVar

from kubechain_common.api.v1alpha1.meta import KubeModel, Resource
from kubechain_common.kube.client import KubeClient
from kubechain_common.kube.errors import InvalidError
from kubechain_common.kube.informer import Informer

R = TypeVar("R", bound=Resource)


async def write_status(client: KubeClient, informer: Informer[R], obj: R, new_status: KubeModel) -> R:
    """Makes the object's status equal to ``new_status``; returns the object as the API server has it now.

    Nothing is sent when nothing differs. Raises ConflictError when the object changed meanwhile (read again and
    decide again), NotFoundError when it is gone, TooLargeError when it would not fit, InvalidError when the informer
    has only a part of the object, so that the rest would be lost.
    """
    if not is_changed(_status_of(obj), new_status):
        return obj
    if not informer.keeps_whole(obj):
        raise InvalidError(f"{obj.crd.kind} {obj.namespace}/{obj.name} is kept in part, so its status is not written")
    written = await client.update_status(obj, build_wire(new_status))
    informer.observe(written)
    return written


def is_changed(old: KubeModel, new: KubeModel) -> bool:
    """Whether ``new`` reads differently on the wire from ``old``, which came from the API server.

    Fields that share their value (the usual outcome of ``model_copy``) are told apart by identity and never serialised;
    nor is what comes after the first one that differs, a conversation least of all.
    A field at its default that the server does not have counts only if it was set on purpose.
    """
    return any(
        _differs(old, new, field) and _dump(old, {field} & old.model_fields_set) != _dump(new, {field})
        for field in type(new).model_fields
    )


def build_wire(status: KubeModel) -> dict[str, Any]:
    """What was read or set on purpose; a default that nobody asked for is left to the schema."""
    return _dump(status, status.model_fields_set)


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
