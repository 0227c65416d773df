"""MCPServer: a Model Context Protocol server, started by us over stdio or reached over HTTP."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

from kubechain_common.api.nesting import OpenObject
from kubechain_common.api.v1alpha1.meta import (
    CRDInfo,
    HttpURL,
    KubeModel,
    PrinterColumn,
    Ref,
    Resource,
    SecretSource,
    refers_to,
)
from kubechain_common.api.v1alpha1.rules import Rule, cel, cel_matches, immutable, validations
from kubechain_common.api.v1alpha1.status import ReadinessStatus

DEFAULT_REQUEST_TIMEOUT_SECONDS = 60
DEFAULT_MAX_CONCURRENCY = 16

_BY_NAME = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}


_ONE_VALUE = cel("has(self.value) != has(self.valueFrom)", "set exactly one of value and valueFrom")


class NamedValue(KubeModel):
    """A literal value, or one from a Secret."""

    name: Annotated[str, Field(min_length=1, max_length=253, description="Its name.")]
    value: Annotated[str, Field(max_length=32768, description="Its value, for everybody to read.")] | None = None
    value_from: Annotated[SecretSource, Field(description="The Secret that holds its value.")] | None = None


class EnvVar(NamedValue):
    """An environment variable: a literal value, or one from a Secret."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            _ONE_VALUE,
            cel_matches(
                "^[-._a-zA-Z][-._a-zA-Z0-9]*$",
                "name of an environment variable takes letters, digits, '_', '-' and '.', and no digit comes first",
                field="name",
            ),
        )
    )


class HTTPHeader(NamedValue):
    """An HTTP header: a literal value, or one from a Secret."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            _ONE_VALUE,
            cel_matches(
                "^[-!#$%&*+.^_`|~0-9a-zA-Z]+$",
                "name of an HTTP header takes letters, digits and '-', and no space or colon",
                field="name",
            ),
        )
    )


Quantity = Annotated[
    int | str,
    Field(
        json_schema_extra={
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "maxLength": 64,
            "x-kubernetes-int-or-string": True,
        }
    ),
]


MIN_CPU = "10m"
MIN_MEMORY = "16Mi"
"""Less is a unit that was forgotten or mistaken: 512, or 512m, where 512Mi was meant."""


def _at_least(field: str, least: str, what: str) -> Rule:
    return cel(
        f"!has(self.{field}) || isQuantity(string(self.{field})) && "
        f"quantity(string(self.{field})).compareTo(quantity('{least}')) >= 0",
        f"{field} {what}, at least {least}",
        field=field,
    )


class ResourceLimits(KubeModel):
    model_config = ConfigDict(
        json_schema_extra=validations(
            _at_least("cpu", MIN_CPU, "is a number of cores, as in 500m or 2"),
            _at_least("memory", MIN_MEMORY, "is a number of bytes with its unit, as in 512Mi or 1Gi"),
        )
    )

    cpu: (
        Annotated[
            Quantity,
            Field(description="Cores. A server that uses more is held up, over a tenth of a second at a time."),
        ]
        | None
    ) = None
    memory: (
        Annotated[Quantity, Field(description="Bytes. A server that uses more is ended, and started again.")] | None
    ) = None


class ResourceRequirements(KubeModel):
    """What the server's processes may use together, in each replica of mcp-host."""

    limits: (
        Annotated[ResourceLimits, Field(description="What the server may use; absent: as much as mcp-host's pod may.")]
        | None
    ) = None
    requests: (
        Annotated[
            dict[str, Quantity],
            Field(
                description="Accepted and not acted upon: servers share the pod of mcp-host, which reserves for all.",
                max_length=8,
            ),
        ]
        | None
    ) = None


class ApprovalPolicy(KubeModel):
    """Which tools wait for approval: those listed (absent: all), less those that only read, if they are let through."""

    tools: (
        Annotated[
            list[Annotated[str, Field(min_length=1, max_length=253)]],
            Field(max_length=512, description="Names of the tools that wait, as the server calls them. Absent: all."),
        ]
        | None
    ) = None
    skip_read_only: (
        Annotated[bool, Field(description="Let tools through that the server marks with readOnlyHint.")] | None
    ) = None


class MCPServerSpec(KubeModel):
    """How the server is reached, and how its tools are called."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            cel("!has(self.approval) || has(self.approvalContactChannel)", "approval needs approvalContactChannel"),
            cel("self.transport != 'stdio' || has(self.command)", "command is required for transport stdio"),
            cel(
                "!has(self.command) || self.command.matches('^[^ \\\\t\\\\r\\\\n](.*[^ \\\\t\\\\r\\\\n])?$')",
                "command begins or ends with a space: it is one program, and what follows it goes into args",
                field="command",
            ),
            cel("self.transport != 'http' || has(self.url)", "url is required for transport http"),
            cel("self.transport != 'stdio' || !has(self.url)", "url is for transport http only"),
            cel(
                "self.transport != 'http' || "
                "!(has(self.command) || has(self.args) || has(self.env) || has(self.resources))",
                "command, args, env and resources are for transport stdio only",
            ),
            cel("self.transport != 'stdio' || !has(self.headers)", "headers are for transport http only"),
            immutable("session", ": delete the MCPServer and make it again with another"),
        )
    )

    transport: Annotated[
        Literal["stdio", "http"],
        Field(description="stdio: mcp-host starts command. http: the server is at url (streamable HTTP, or SSE)."),
    ]
    command: (
        Annotated[
            str,
            Field(min_length=1, max_length=4096, description="The program to start, alone; args are its arguments."),
        ]
        | None
    ) = None
    args: (
        Annotated[
            list[Annotated[str, Field(max_length=32768)]], Field(max_length=256, description="Arguments of command.")
        ]
        | None
    ) = None
    env: (
        Annotated[
            list[EnvVar],
            Field(
                max_length=256,
                json_schema_extra=_BY_NAME,
                description="Environment variables of command, beside the few that every server gets.",
            ),
        ]
        | None
    ) = None
    url: Annotated[HttpURL, Field(description="Where the server is, with transport http.")] | None = None
    headers: (
        Annotated[
            list[HTTPHeader],
            Field(
                max_length=64, json_schema_extra=_BY_NAME, description="HTTP headers of every request to the server."
            ),
        ]
        | None
    ) = None
    resources: ResourceRequirements | None = None
    approval_contact_channel: (
        Annotated[
            Ref,
            refers_to("a ContactChannel"),
            Field(description="The ContactChannel through which a person approves calls before they run."),
        ]
        | None
    ) = None
    approval: ApprovalPolicy | None = None
    request_timeout_seconds: (
        Annotated[int, Field(ge=1, le=86400, description="Seconds that a call of a tool may take. Absent: 60.")] | None
    ) = None
    max_concurrency: (
        Annotated[
            int,
            Field(
                ge=1,
                le=1000,
                description="At most so many calls of this server run at a time, over all replicas of mcp-host."
                " Absent: 16.",
            ),
        ]
        | None
    ) = None
    on_lost_execution: (
        Annotated[
            Literal["Fail", "Retry"],
            Field(
                description="What becomes of a call whose process or connection was lost while it ran. Fail: its"
                " outcome is unknown, and the model is told. Retry: it runs again, as calls of tools do that the"
                " server marks read-only or idempotent. Absent: Fail."
            ),
        ]
        | None
    ) = None
    session: (
        Annotated[
            Literal["PerTask", "Shared"],
            Field(
                description="For a server that remembers: PerTask gives each Task a session of its own, Shared has one "
                "for all calls. A session is one process (stdio) or one MCP session (http) on one replica of mcp-host; "
                "when that replica goes it begins anew elsewhere, and an event says so. Absent: the server remembers "
                "nothing, and every replica may run any call."
            ),
        ]
        | None
    ) = None


class ToolAnnotations(KubeModel):
    """Hints of the server about a tool.

    https://modelcontextprotocol.io/specification/draft/schema (ToolAnnotations)
    """

    title: Annotated[str, Field(description="Name of the tool for people.")] | None = None
    read_only_hint: Annotated[bool, Field(description="The tool changes nothing.")] | None = None
    destructive_hint: Annotated[bool, Field(description="What the tool changes may be lost.")] | None = None
    idempotent_hint: Annotated[bool, Field(description="Calling it twice does what calling it once does.")] | None = (
        None
    )
    open_world_hint: Annotated[bool, Field(description="It deals with the world outside, like the Web.")] | None = None


class MCPTool(KubeModel):
    """A tool exactly as the server describes it."""

    name: Annotated[str, Field(max_length=253, description="Name of the tool.")]
    description: Annotated[str, Field(description="What the model reads of it.")] | None = None
    input_schema: Annotated[OpenObject, Field(description="JSON schema of its arguments.")] | None = None
    annotations: ToolAnnotations | None = None


class MCPServerStatus(ReadinessStatus):
    """Connected while the server answers; the tools are those of its last listing."""

    connected: Annotated[bool, Field(description="Whether its tools can be called now.")] = False
    protocol_version: Annotated[str, Field(description="Version of MCP that it speaks.")] | None = None
    tools: Annotated[list[MCPTool], Field(description="Its tools, as it listed them last.")] = Field(
        default_factory=list
    )


class MCPServer(Resource):
    """A source of tools."""

    crd: ClassVar[CRDInfo] = CRDInfo(
        kind="MCPServer",
        plural="mcpservers",
        singular="mcpserver",
        short_names=(),
        columns=(
            PrinterColumn("Ready", ".status.connected", "boolean"),
            PrinterColumn("Status", ".status.status"),
            PrinterColumn("Detail", ".status.statusDetail", priority=1),
        ),
    )

    spec: MCPServerSpec
    status: MCPServerStatus = Field(default_factory=MCPServerStatus)
