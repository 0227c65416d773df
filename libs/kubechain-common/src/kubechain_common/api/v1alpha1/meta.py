"""What all kinds share: metadata, references, timestamps and the description of a CRD.

Field names are snake_case here and camelCase on the wire. Models ignore unknown fields, because the API server may
know newer ones than this process does; strictness is the CRD schema's job.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from pydantic.alias_generators import to_camel

from kubechain_common.api.v1alpha1.rules import Rule, cel, cel_matches, validations

GROUP = "kubechain.humanlayer.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"


LONG_AGO = datetime(1, 1, 2, tzinfo=UTC)


def _to_seconds(value: datetime) -> str:
    return value.astimezone(UTC).replace(tzinfo=None, microsecond=0).isoformat() + "Z"


def _to_micros(value: datetime) -> str:
    return value.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def _or_long_ago(value: Any, parse: ValidatorFunctionWrapHandler) -> datetime:
    """The API server admits moments that Python has not (the year 0, an offset of 99 hours); they are long ago."""
    try:
        moment: datetime = parse(value)
        return moment if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValidationError, OverflowError):
        if not isinstance(value, str):
            raise
        return LONG_AGO


AnyMoment = WrapValidator(_or_long_ago)

Timestamp = Annotated[datetime, AnyMoment, PlainSerializer(_to_seconds, return_type=str, when_used="json")]
"""RFC 3339 in UTC with a resolution of one second, like metav1.Time."""

MicroTime = Annotated[datetime, PlainSerializer(_to_micros, return_type=str, when_used="json")]
"""RFC 3339 in UTC with exactly six fractional digits, like metav1.MicroTime."""

ObjectName = Annotated[str, Field(min_length=1, max_length=253)]

_OBJECT_NAME = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"


class KubeModel(BaseModel):
    """Base of everything that is part of a resource."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="ignore", serialize_by_alias=True, validate_default=False
    )

    def to_wire(self) -> dict[str, Any]:
        """The JSON-ready form that the API server takes: camelCase, without absent fields."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class Ref(KubeModel):
    """Names an object of a known kind in the same namespace."""

    name: Annotated[ObjectName, Field(description="Name of the object, in the same namespace.")]


def refers_to(what: str) -> Any:
    """Field of a Ref in a spec: ``Annotated[Ref, refers_to("an Agent")]``."""
    return Field(json_schema_extra=validations(names_an_object(what)))


HttpURL = Annotated[
    str,
    Field(
        max_length=2048,
        json_schema_extra=validations(
            cel(
                "isURL(self) && url(self).getScheme() in ['http', 'https'] && url(self).getHost() != ''",
                "this is not a URL that begins with http:// or https:// and names a host",
            )
        ),
    ),
]


def names_an_object(what: str) -> Rule:
    """The rule for a reference that could never be met, and would be waited for without an end."""
    allowed = "lower-case letters, digits, '-' and '.', with a letter or digit at both ends"
    return cel_matches(_OBJECT_NAME, f"name is not the name of {what}: it takes {allowed}", field="name")


class SecretKeyRef(KubeModel):
    """Names one key of a Secret in the same namespace."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            names_an_object("a Secret"),
            cel_matches("^[-._a-zA-Z0-9]+$", "key of a Secret takes letters, digits, '-', '_' and '.'", field="key"),
        )
    )

    name: Annotated[ObjectName, Field(description="Name of the Secret.")]
    key: Annotated[str, Field(min_length=1, max_length=253, description="Key in the Secret's data.")]


class SecretSource(KubeModel):
    """Where a secret value comes from."""

    secret_key_ref: SecretKeyRef


class OwnerReference(KubeModel):
    """See https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/object-meta/#ownerreferences"""

    api_version: str
    kind: str
    name: str
    uid: str
    controller: bool = False
    block_owner_deletion: bool | None = None


class ObjectMeta(KubeModel):
    """The part of metadata that our controllers read."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: Timestamp | None = None
    deletion_timestamp: Timestamp | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    owner_references: list[OwnerReference] = Field(default_factory=list)
    finalizers: list[str] = Field(default_factory=list)

    @property
    def deleting(self) -> bool:
        """True once deletion was asked for, while finalizers still hold the object."""
        return self.deletion_timestamp is not None


@dataclass(frozen=True)
class PrinterColumn:
    """One column of ``kubectl get``; priority 1 shows it with ``-o wide`` only."""

    name: str
    json_path: str
    type: Literal["string", "boolean", "integer", "date"] = "string"
    priority: int = 0


@dataclass(frozen=True)
class CRDInfo:
    """What a CustomResourceDefinition says beside the schema."""

    kind: str
    plural: str
    singular: str
    short_names: tuple[str, ...]
    columns: tuple[PrinterColumn, ...]
    selectable: tuple[str, ...] = ()
    """JSON paths of the fields by which lists and watches may be narrowed."""


class Resource(KubeModel):
    """Base of the six kinds."""

    crd: ClassVar[CRDInfo]

    api_version: str = API_VERSION
    kind: str = ""
    metadata: ObjectMeta = Field(default_factory=ObjectMeta)

    @property
    def namespace(self) -> str:
        return self.metadata.namespace

    @property
    def name(self) -> str:
        return self.metadata.name

    @property
    def uid(self) -> str:
        return self.metadata.uid

    @property
    def key(self) -> tuple[str, str]:
        """(namespace, name): how informers and workqueues know the object."""
        return (self.metadata.namespace, self.metadata.name)

    def build_owner_reference(self) -> OwnerReference:
        """A controller reference to this object, for a child that must go when it goes."""
        return OwnerReference(
            api_version=API_VERSION, kind=self.crd.kind, name=self.name, uid=self.uid, controller=True
        )
