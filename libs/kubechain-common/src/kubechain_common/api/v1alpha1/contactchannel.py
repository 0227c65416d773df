"""ContactChannel: a way to reach a person."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

from kubechain_common.api.v1alpha1.meta import (
    CRDInfo,
    KubeModel,
    PrinterColumn,
    Resource,
    SecretSource,
    cel,
    cel_matches,
    validations,
)
from kubechain_common.api.v1alpha1.status import ReadinessStatus


class SlackChannel(KubeModel):
    channel_or_user_id: Annotated[
        str,
        Field(
            max_length=64,
            json_schema_extra=validations(
                cel_matches(
                    "^[CU][A-Z0-9]+$",
                    "channelOrUserID is the id that Slack shows in the details of a channel (C0123ABCD) or of a person"
                    " (U0123ABCD), not its name",
                )
            ),
        ),
    ] = Field(alias="channelOrUserID")
    context_about_channel_or_user: Annotated[str, Field(max_length=4096)] | None = None
    allowed_responder_ids: Annotated[list[Annotated[str, Field(max_length=64)]], Field(max_length=256)] | None = Field(
        default=None, alias="allowedResponderIDs"
    )


class EmailChannel(KubeModel):
    address: Annotated[
        str,
        Field(
            max_length=320,
            json_schema_extra=validations(
                cel_matches(
                    r"^[^@\s]+@[^@\s]+\.[^@\s.]+$", "address has to be one e-mail address, like approver@example.com"
                )
            ),
        ),
    ]
    context_about_user: Annotated[str, Field(max_length=4096)] | None = None
    subject: Annotated[str, Field(max_length=998)] | None = None


class ContactChannelSpec(KubeModel):
    model_config = ConfigDict(
        json_schema_extra=validations(
            cel("self.type != 'slack' || has(self.slack)", "slack is required for channel type slack"),
            cel("self.type != 'email' || has(self.email)", "email is required for channel type email"),
            cel("self.type == 'slack' || !has(self.slack)", "slack is for channel type slack only"),
            cel("self.type == 'email' || !has(self.email)", "email is for channel type email only"),
        )
    )

    type: Literal["slack", "email"]
    api_key_from: SecretSource
    slack: SlackChannel | None = None
    email: EmailChannel | None = None


class ContactChannelStatus(ReadinessStatus):
    """Empty in this version, which has no service for channels: an approval is given with spec.decision of the call."""


class ContactChannel(Resource):
    """How an approval or a question reaches a person."""

    crd: ClassVar[CRDInfo] = CRDInfo(
        kind="ContactChannel",
        plural="contactchannels",
        singular="contactchannel",
        short_names=(),
        columns=(
            PrinterColumn("Type", ".spec.type"),
            PrinterColumn("Ready", ".status.ready", "boolean"),
            PrinterColumn("Status", ".status.status"),
            PrinterColumn("Detail", ".status.statusDetail", priority=1),
        ),
    )

    spec: ContactChannelSpec
    status: ContactChannelStatus = Field(default_factory=ContactChannelStatus)
