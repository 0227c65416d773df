"""What a Task keeps in ConfigMaps: which text, under which name, for whom."""

from __future__ import annotations

from dataclasses import dataclass

from kubechain_common.api.v1alpha1.meta import OwnerReference
from kubechain_common.api.v1alpha1.task import Task
from kubechain_common.api.v1alpha1.taskruntoolcall import TaskRunToolCall

IMAGE_KEY = "image"


@dataclass(frozen=True)
class StoredText:
    """A text that a Task keeps in a ConfigMap; an image is one too, in base64."""

    name: str
    key: str
    text: str


def find_task(call: TaskRunToolCall) -> OwnerReference | None:
    """The Task that the call belongs to; None for a call that was made by hand."""
    return next((owner for owner in call.metadata.owner_references or () if owner.kind == Task.crd.kind), None)
