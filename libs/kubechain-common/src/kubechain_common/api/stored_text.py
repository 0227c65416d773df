"""What a Task keeps in ConfigMaps: which text, under which name, for whom."""

from __future__ import annotations

from dataclasses import dataclass

from kubechain_common.api.v1alpha1.meta import API_VERSION, OwnerReference
from kubechain_common.api.v1alpha1.task import Task
from kubechain_common.api.v1alpha1.taskruntoolcall import TaskRunToolCall

IMAGE_KEY = "image"


@dataclass(frozen=True)
class StoredText:
    """A text that a Task keeps in a ConfigMap; an image is one too, in base64."""

    name: str
    key: str
    text: str


@dataclass(frozen=True)
class TextOwner:
    """The Task whose text it is."""

    namespace: str
    name: str
    uid: str

    @classmethod
    def of(cls, task: Task) -> TextOwner:
        return cls(task.namespace, task.name, task.uid)

    @classmethod
    def of_call(cls, call: TaskRunToolCall) -> TextOwner | None:
        """The Task that the call belongs to; None for a call that was made by hand."""
        owners = call.metadata.owner_references or ()
        found = next((owner for owner in owners if owner.kind == Task.crd.kind), None)
        return cls(call.namespace, found.name, found.uid) if found else None

    def build_reference(self) -> OwnerReference:
        return OwnerReference(
            api_version=API_VERSION, kind=Task.crd.kind, name=self.name, uid=self.uid, controller=True
        )
