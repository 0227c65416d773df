"""What every ``.status`` shares: the ready/status/statusDetail that users know, beside Kubernetes conditions."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field

from kubechain_common.api.v1alpha1.meta import KubeModel, Timestamp

MAX_DETAIL = 4096
"""Characters of statusDetail and of a condition's message; longer text is cut with an ellipsis."""


ObservedGeneration = Annotated[int, Field(description="The metadata.generation of the spec that this speaks of.")]


class Condition(KubeModel):
    """See https://kubernetes.io/docs/reference/generated/kubernetes-api/v1.36/#condition-v1-meta"""

    type: Annotated[str, Field(max_length=316, description="Name of the condition.")]
    status: Annotated[Literal["True", "False", "Unknown"], Field(description="Whether it holds.")]
    reason: Annotated[str, Field(min_length=1, max_length=1024, description="Why, in one word for programs.")]
    message: Annotated[str, Field(max_length=32768, description="Why, in a sentence.")] = ""
    last_transition_time: Annotated[Timestamp, Field(description="When status changed last.")]
    observed_generation: ObservedGeneration | None = None


Conditions = Annotated[
    list[Condition],
    Field(
        max_length=16,
        description="What else holds, as Kubernetes conditions.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    ),
]


class SpanContext(KubeModel):
    """The root span of a run, so that every process can join its trace."""

    trace_id: Annotated[str, Field(max_length=32, description="Id of the trace: 32 hexadecimal digits.")] = Field(
        default="", alias="traceID"
    )
    span_id: Annotated[str, Field(max_length=16, description="Id of the span: 16 hexadecimal digits.")] = Field(
        default="", alias="spanID"
    )


def shorten(text: str, limit: int = MAX_DETAIL) -> str:
    """The text itself, or its beginning with an ellipsis when it is over ``limit`` characters."""
    return text if len(text) <= limit else text[: limit - 3] + "..."


def set_condition(conditions: list[Condition], new: Condition) -> list[Condition]:
    """The conditions with ``new`` in place of the one of its type.

    lastTransitionTime moves only when its status does.
    """
    kept = [c for c in conditions if c.type != new.type]
    old = next((c for c in conditions if c.type == new.type), None)
    if old is not None and old.status == new.status:
        new = new.model_copy(update={"last_transition_time": old.last_transition_time})
    return [*kept, new]


def _close(schema: dict[str, Any]) -> None:
    """What a newer release may have added is for its own CRD to declare."""
    schema.pop("additionalProperties", None)


class Status(KubeModel):
    """Base of every ``.status``, which is written as a whole.

    So it keeps what it does not know and sends it back: during an upgrade the CRDs are the newer release's, and a
    controller of the older one may write what a newer one wrote before.
    """

    model_config = ConfigDict(extra="allow", json_schema_extra=_close)


class ReadinessStatus(Status):
    """Status of the kinds that are either ready for use or not: LLM, Agent, MCPServer, ContactChannel."""

    ready: Annotated[bool, Field(description="Whether the object can be used now: true with status Ready.")] = False
    status: (
        Annotated[
            Literal["Ready", "Error", "Pending"],
            Field(description="Ready, or why not: Pending waits for something, Error has something wrong."),
        ]
        | None
    ) = None
    status_detail: Annotated[str, Field(max_length=32768, description="The same in a sentence, with the reason.")] = ""
    observed_generation: ObservedGeneration | None = None
    conditions: Annotated[
        Conditions, Field(description="The same as a Kubernetes condition: Ready is True with status Ready.")
    ] = Field(default_factory=list)

    def mark(
        self, status: Literal["Ready", "Error", "Pending"], reason: str, detail: str, *, generation: int, now: datetime
    ) -> Self:
        """A copy that says ``status``, with the ``Ready`` condition in step."""
        detail = shorten(detail)
        condition = Condition(
            type="Ready",
            status="True" if status == "Ready" else "False",
            reason=reason,
            message=detail,
            last_transition_time=now,
            observed_generation=generation,
        )
        return self.model_copy(
            update={
                "ready": status == "Ready",
                "status": status,
                "status_detail": detail,
                "observed_generation": generation,
                "conditions": set_condition(self.conditions, condition),
            }
        )
