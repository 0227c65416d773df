"""ContactChannel: a way to reach a person.

``email`` and ``slack`` go through the HumanLayer API where the channel has an ``apiKeyFrom``, and without any third
party where it has ``email.smtp`` or ``slack.botTokenFrom``. ``webhook`` tells a program of the user's own, and
``inbox`` nobody: its requests are found on our page, with the kubechain command and with kubectl, as all are.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

from kubechain_common.api.v1alpha1.meta import (
    CRDInfo,
    HttpURL,
    KubeModel,
    PrinterColumn,
    Resource,
    SecretSource,
)
from kubechain_common.api.v1alpha1.rules import cel, cel_matches, validations
from kubechain_common.api.v1alpha1.status import ReadinessStatus

ChannelType = Literal["slack", "email", "webhook", "inbox"]

_MAIL_ADDRESS = r"^[^@\s]+@[^@\s]+\.[^@\s.]+$"


Context = Annotated[
    str, Field(max_length=4096, description="Who is reached here; the model reads it, and so does HumanLayer.")
]


class SMTPServer(KubeModel):
    """A mail server of the user's own. Without ``username`` nobody signs in.

    https://www.rfc-editor.org/rfc/rfc8314 (TLS and STARTTLS for submission)
    """

    model_config = ConfigDict(
        json_schema_extra=validations(
            cel("has(self.username) == has(self.passwordFrom)", "username and passwordFrom belong together"),
            cel_matches(
                "^([^<>]+<)?[^@\\s<>]+@[^@\\s<>]+>?$",
                "from is the sender's address, like kubechain@example.com",
                field="from",
            ),
        )
    )

    host: Annotated[str, Field(min_length=1, max_length=253, description="Name or address of the mail server.")]
    port: (
        Annotated[int, Field(ge=1, le=65535, description="Absent: 587 with StartTLS, 465 with TLS, 25 with None.")]
        | None
    ) = None
    security: (
        Annotated[
            Literal["StartTLS", "TLS", "None"], Field(description="How the connection is encrypted. Absent: StartTLS.")
        ]
        | None
    ) = None
    sender: Annotated[str, Field(max_length=320, description="The sender, like KubeChain <bot@example.com>.")] = Field(
        alias="from"
    )
    username: (
        Annotated[str, Field(min_length=1, max_length=320, description="Who signs in. Absent: nobody does.")] | None
    ) = None
    password_from: Annotated[SecretSource, Field(description="The Secret with the password of username.")] | None = None


class SlackChannel(KubeModel):
    """A channel or person of Slack, reached through HumanLayer's app or your own."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            cel(
                "has(self.botTokenFrom) == has(self.signingSecretFrom)",
                "botTokenFrom and signingSecretFrom belong together: without the signing secret of the Slack app no"
                " answer could be told from a forged one",
            )
        )
    )

    channel_or_user_id: Annotated[
        str,
        Field(
            max_length=64,
            description="Id of the Slack channel (C...) or person (U...) that is asked.",
            json_schema_extra=validations(
                cel_matches(
                    "^[CU][A-Z0-9]+$",
                    "channelOrUserID is the id that Slack shows in the details of a channel (C0123ABCD) or of a person"
                    " (U0123ABCD), not its name",
                )
            ),
        ),
    ] = Field(alias="channelOrUserID")
    context_about_channel_or_user: Context | None = None
    allowed_responder_ids: (
        Annotated[
            list[Annotated[str, Field(max_length=64)]],
            Field(
                max_length=256, description="User ids (U...) of those who may answer. Absent: whoever sees the message."
            ),
        ]
        | None
    ) = Field(default=None, alias="allowedResponderIDs")
    bot_token_from: (
        Annotated[
            SecretSource, Field(description="The bot token (xoxb-...) of your own Slack app, in place of apiKeyFrom.")
        ]
        | None
    ) = None
    signing_secret_from: (
        Annotated[
            SecretSource,
            Field(description="The signing secret of that Slack app: its interactions are verified with it."),
        ]
        | None
    ) = None
    base_url: Annotated[HttpURL, Field(description="Where Slack's API is. Absent: https://slack.com/api.")] | None = (
        None
    )


class EmailChannel(KubeModel):
    """A person who is reached by mail, through HumanLayer or your own mail server."""

    address: Annotated[
        str,
        Field(
            max_length=320,
            description="Who is asked: one address.",
            json_schema_extra=validations(
                cel_matches(_MAIL_ADDRESS, "address has to be one e-mail address, like approver@example.com")
            ),
        ),
    ]
    context_about_user: Context | None = None
    subject: (
        Annotated[str, Field(max_length=998, description="Subject of the mails. Absent: it tells what is asked.")]
        | None
    ) = None
    smtp: (
        Annotated[SMTPServer, Field(description="A mail server of your own sends the mail, in place of apiKeyFrom.")]
        | None
    ) = None


class WebhookChannel(KubeModel):
    """A program that asks people in its own way. The secret signs what we send, and what it sends back."""

    url: Annotated[HttpURL, Field(description="Where requests are posted, as JSON signed by Standard Webhooks.")]
    signing_secret_from: Annotated[
        SecretSource, Field(description="The shared secret: whsec_ and base64, or any text, which is used as it is.")
    ]
    context_about_user: Context | None = None


class InboxChannel(KubeModel):
    """Nobody is told: people look for what waits, on the page, with kubechain or with kubectl."""

    context_about_user: Context | None = None


class HumanLayerAPI(KubeModel):
    """Where the HumanLayer API is, and the secret of its webhook to us, if one is set up there."""

    base_url: (
        Annotated[HttpURL, Field(description="Absent: the HumanLayer API that human-bridge is configured with.")] | None
    ) = None
    webhook_secret_from: (
        Annotated[
            SecretSource,
            Field(
                description="The secret of HumanLayer's webhook to /humanlayer/<namespace>/<channel> of human-bridge."
            ),
        ]
        | None
    ) = None


class ContactChannelSpec(KubeModel):
    """How a person is reached, and what happens when nobody answers."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            cel("self.type != 'slack' || has(self.slack)", "slack is required for channel type slack"),
            cel("self.type != 'email' || has(self.email)", "email is required for channel type email"),
            cel("self.type != 'webhook' || has(self.webhook)", "webhook is required for channel type webhook"),
            cel("self.type == 'slack' || !has(self.slack)", "slack is for channel type slack only"),
            cel("self.type == 'email' || !has(self.email)", "email is for channel type email only"),
            cel("self.type == 'webhook' || !has(self.webhook)", "webhook is for channel type webhook only"),
            cel("self.type == 'inbox' || !has(self.inbox)", "inbox is for channel type inbox only"),
            cel(
                "self.type != 'email' || !has(self.email) || has(self.apiKeyFrom) != has(self.email.smtp)",
                "an email channel needs either apiKeyFrom (HumanLayer sends the mail) or email.smtp (your mail server"
                " does), and not both",
            ),
            cel(
                "self.type != 'slack' || !has(self.slack) || has(self.apiKeyFrom) != has(self.slack.botTokenFrom)",
                "a slack channel needs either apiKeyFrom (HumanLayer's Slack app) or slack.botTokenFrom (your own), and"
                " not both",
            ),
            cel(
                "self.type in ['slack', 'email'] || !has(self.apiKeyFrom)",
                "apiKeyFrom is for HumanLayer, which serves channels of type slack and email",
            ),
            cel("!has(self.humanLayer) || has(self.apiKeyFrom)", "humanLayer needs apiKeyFrom"),
            cel("!has(self.onTimeout) || has(self.timeoutSeconds)", "onTimeout needs timeoutSeconds"),
        )
    )

    type: Annotated[
        ChannelType, Field(description="How people are reached. Each type but inbox needs the field of its name.")
    ]
    api_key_from: (
        Annotated[
            SecretSource,
            Field(description="The HumanLayer API key, for email and slack channels that go through HumanLayer."),
        ]
        | None
    ) = None
    human_layer: HumanLayerAPI | None = None
    slack: SlackChannel | None = None
    email: EmailChannel | None = None
    webhook: WebhookChannel | None = None
    inbox: InboxChannel | None = None
    timeout_seconds: (
        Annotated[int, Field(ge=1, description="Seconds after which nobody is waited for any more. Absent: for ever.")]
        | None
    ) = None
    on_timeout: (
        Annotated[
            Literal["Approve", "Reject"],
            Field(
                description="What becomes of an approval then. Absent: Reject. A question that nobody answers fails."
            ),
        ]
        | None
    ) = None

    @property
    def context(self) -> str:
        """What the model is told of the person at the other end; may be empty."""
        match self.type:
            case "slack":
                return (self.slack.context_about_channel_or_user if self.slack else None) or ""
            case "email":
                return (self.email.context_about_user if self.email else None) or ""
            case "webhook":
                return (self.webhook.context_about_user if self.webhook else None) or ""
            case _:
                return (self.inbox.context_about_user if self.inbox else None) or ""


class ContactChannelStatus(ReadinessStatus):
    """Ready once the channel could reach its person."""


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
