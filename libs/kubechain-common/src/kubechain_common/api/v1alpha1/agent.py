"""Agent: an LLM, a system prompt and the tools it may call."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

from kubechain_common.api.nesting import OpenObject
from kubechain_common.api.v1alpha1.conversation import TokenUsage
from kubechain_common.api.v1alpha1.meta import (
    CRDInfo,
    KubeModel,
    ObjectName,
    PrinterColumn,
    Ref,
    Resource,
    names_an_object,
    refers_to,
)
from kubechain_common.api.v1alpha1.money import Currency, Sum
from kubechain_common.api.v1alpha1.rules import cel, cel_matches, validations
from kubechain_common.api.v1alpha1.status import ReadinessStatus

DEFAULT_MAX_DELEGATION_DEPTH = 5

_BY_NAME = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}


class AgentMCPServer(KubeModel):
    """An MCPServer whose tools the agent may use; ``tools`` limits them to the names listed."""

    model_config = ConfigDict(json_schema_extra=validations(names_an_object("an MCPServer")))

    name: Annotated[ObjectName, Field(description="Name of the MCPServer, in the same namespace.")]
    tools: (
        Annotated[
            list[Annotated[str, Field(min_length=1, max_length=253)]],
            Field(max_length=512, description="Names of its tools that the agent may use. Absent: all."),
        ]
        | None
    ) = None


class AgentResponseFormat(KubeModel):
    """The JSON that every final answer has to be; one that is not is sent back to the model once."""

    type: Annotated[Literal["JSONSchema"], Field(description="How the form is described: by a JSON schema.")]
    name: (
        Annotated[
            str,
            Field(
                max_length=253,
                description="What the model is told that it is. Absent: answer.",
                json_schema_extra=validations(
                    cel_matches("^[a-zA-Z0-9_-]{1,64}$", "name takes up to 64 letters, digits, '_' and '-'"),
                ),
            ),
        ]
        | None
    ) = None
    json_schema: Annotated[
        OpenObject,
        Field(
            description="A JSON schema of at most 32 KiB, without pattern, patternProperties, uniqueItems,"
            " unevaluatedProperties, unevaluatedItems and references to elsewhere."
        ),
    ]


class AgentContext(KubeModel):
    """How much the model may be given to read, and what becomes of a conversation that grows beyond it."""

    max_tokens: Annotated[
        int, Field(ge=1, description="Tokens of a request: those of the last one, and an estimate of what came after.")
    ]
    on_overflow: (
        Annotated[
            Literal["Fail", "Summarise"],
            Field(
                description="Fail ends the Task. Summarise has the model summarise all but the beginning and the last"
                " messages, and goes on with that. Absent: Fail."
            ),
        ]
        | None
    ) = None


class AgentSpec(KubeModel):
    """The LLM that the agent is, what that is told to be, and the tools that it is offered."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            cel(
                "self.system.matches('[^ \\\\t\\\\r\\\\n]')",
                "system is blank: tell the agent what it is for",
                field="system",
            )
        )
    )

    llm_ref: Annotated[Ref, refers_to("an LLM"), Field(description="The LLM that is asked.")]
    system: Annotated[
        str,
        Field(
            min_length=1,
            max_length=262144,
            description="The system prompt. A Task begins with it, unless its contextWindow has a system message.",
        ),
    ]
    description: (
        Annotated[
            str, Field(max_length=4096, description="What it is good for; agents that may delegate to it read this.")
        ]
        | None
    ) = None
    mcp_servers: Annotated[
        list[AgentMCPServer],
        Field(max_length=64, json_schema_extra=_BY_NAME, description="MCPServers whose tools it may call."),
    ] = Field(default_factory=list)
    human_contact_channels: Annotated[
        list[Annotated[Ref, refers_to("a ContactChannel")]],
        Field(
            max_length=64,
            json_schema_extra=_BY_NAME,
            description="ContactChannels as tools: a call asks the person, and the answer is its result.",
        ),
    ] = Field(default_factory=list)
    sub_agents: Annotated[
        list[Annotated[Ref, refers_to("an Agent")]],
        Field(
            max_length=64,
            json_schema_extra=_BY_NAME,
            description="Agents as tools: a call is a Task of that Agent, and its output is the result.",
        ),
    ] = Field(default_factory=list)
    max_turns: (
        Annotated[
            int, Field(ge=1, le=10000, description="Turns of its Tasks, unless the Task says otherwise. Absent: 50.")
        ]
        | None
    ) = None
    max_delegation_depth: (
        Annotated[
            int, Field(ge=0, le=32, description="Delegations below one another that its calls may make. Absent: 5.")
        ]
        | None
    ) = None
    response_format: AgentResponseFormat | None = None
    context: AgentContext | None = None


class ValidMCPServer(KubeModel):
    name: Annotated[str, Field(description="Name of the MCPServer.")]
    tools: Annotated[list[str], Field(description="Names of its tools that the agent may use.")] = Field(
        default_factory=list
    )


class ValidContactChannel(KubeModel):
    name: Annotated[str, Field(description="Name of the ContactChannel.")]
    type: Annotated[str, Field(description="How it reaches people: its spec.type.")]


class AgentUsage(KubeModel):
    """What Tasks used, all together; the cost is of those that have theirs in this currency."""

    tasks: Annotated[int, Field(description="How many Tasks.")] = 0
    token_usage: Annotated[TokenUsage, Field(description="Their tokens, as the provider counted them.")] = Field(
        default_factory=TokenUsage
    )
    cost: Annotated[Sum, Field(description="What they cost: a decimal. Absent: the LLM had no prices.")] | None = None
    currency: Annotated[Currency, Field(description="Of cost.")] | None = None


class AgentStatus(ReadinessStatus):
    """Ready once everything that the spec names exists and is ready."""

    valid_mcp_servers: Annotated[
        list[ValidMCPServer], Field(description="The MCPServers of the spec, while the agent is ready.")
    ] = Field(default_factory=list, alias="validMCPServers")
    valid_human_contact_channels: Annotated[
        list[ValidContactChannel], Field(description="The ContactChannels of the spec, while the agent is ready.")
    ] = Field(default_factory=list)
    valid_sub_agents: Annotated[
        list[Ref], Field(description="The Agents that it may delegate to, while it is ready.")
    ] = Field(default_factory=list)
    usage: (
        Annotated[
            AgentUsage,
            Field(
                description="What its Tasks used: those that exist, and those that were deleted. Written a few seconds"
                " after a Task has ended. Tasks of sub-agents count for the sub-agent."
            ),
        ]
        | None
    ) = None
    usage_of_deleted: (
        Annotated[
            AgentUsage,
            Field(
                description="The part of usage whose Tasks are gone. A Task that is deleted within seconds of its last"
                " turn, just before all controllers stop, may be missing."
            ),
        ]
        | None
    ) = None


class Agent(Resource):
    """An LLM with a system prompt and tools, which does Tasks."""

    crd: ClassVar[CRDInfo] = CRDInfo(
        kind="Agent",
        plural="agents",
        singular="agent",
        short_names=(),
        columns=(
            PrinterColumn("Ready", ".status.ready", "boolean"),
            PrinterColumn("Status", ".status.status"),
            PrinterColumn("Detail", ".status.statusDetail", priority=1),
        ),
    )

    spec: AgentSpec
    status: AgentStatus = Field(default_factory=AgentStatus)
