"""What all messages share."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from kubechain_common.api.v1alpha1.meta import KubeModel, Resource


class ObjectRef(KubeModel):
    """An object, exactly: the uid tells it from an earlier one of the same name.

    Its parts go into subjects and URLs, so a message whose parts would not fit there is poison. The name is empty where
    only a subject tells whose a message is.
    """

    namespace: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)]
    name: Annotated[str, Field(pattern=r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$", max_length=253)]
    uid: Annotated[str, Field(pattern=r"^[-_a-zA-Z0-9]+$", max_length=253)]

    @classmethod
    def of(cls, obj: Resource) -> ObjectRef:
        return cls(namespace=obj.namespace, name=obj.name, uid=obj.uid)

    @property
    def key(self) -> tuple[str, str]:
        return (self.namespace, self.name)


class Envelope(KubeModel):
    """Base of every message: the version of its shape."""

    v: Literal[1] = 1
