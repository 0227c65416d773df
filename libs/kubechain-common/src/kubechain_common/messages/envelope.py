"""What all messages share."""

from __future__ import annotations

from typing import Literal

from kubechain_common.api.v1alpha1.meta import KubeModel, Resource


class ObjectRef(KubeModel):
    """An object, exactly: the uid tells it from an earlier one of the same name."""

    namespace: str
    name: str
    uid: str

    @classmethod
    def of(cls, obj: Resource) -> ObjectRef:
        return cls(namespace=obj.namespace, name=obj.name, uid=obj.uid)

    @property
    def key(self) -> tuple[str, str]:
        return (self.namespace, self.name)


class Envelope(KubeModel):
    """Base of every message: the version of its shape."""

    v: Literal[1] = 1
