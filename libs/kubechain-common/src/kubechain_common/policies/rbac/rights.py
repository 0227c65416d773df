"""THE table of what each service may do with the API server.

``everywhere`` holds in all namespaces, because Tasks are anybody's; ``at_home`` only in the namespace of the services.
``secrets`` are kept apart, so that an administrator may grant them namespace by namespace: ``get`` and ``watch``
of a name, never ``list`` (docs/decisions/0003-secrets-by-name.md).

The e2e tests run every service under exactly these rights, and one on the API server holds them to the table in
docs/rbac.md, so a right that is missing shows, and so does one too many.
"""

from __future__ import annotations

from dataclasses import dataclass

from kubechain_common.api.v1alpha1 import LLM, Agent, ContactChannel, MCPServer, Task, TaskRunToolCall
from kubechain_common.api.v1alpha1.meta import GROUP, Resource
from kubechain_common.policies.answers import DECIDE_FOR

SERVICES = ("task-controller", "llm-gateway", "toolcall-controller", "mcp-host", "human-bridge")

NAMESPACE = "kubechain-system"
"""Where the manifests install everything."""

CORE = ""
LEASES = "coordination.k8s.io"

GET = ("get",)
FOLLOW = ("list", "watch")
"""What an informer does."""
READ = ("get", "list", "watch")


@dataclass(frozen=True)
class Right:
    """One rule of a role. ``names``: of these objects only, which no ``create`` or ``list`` can be held to."""

    group: str
    resource: str
    verbs: tuple[str, ...]
    why: str
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class ServiceRights:
    """What one service may do."""

    everywhere: tuple[Right, ...]
    at_home: tuple[Right, ...]
    secrets: tuple[Right, ...] = ()


def _ours(kind: type[Resource], verbs: tuple[str, ...], why: str) -> Right:
    return Right(GROUP, kind.crd.plural, verbs, why)


def _status(kind: type[Resource]) -> Right:
    return Right(GROUP, f"{kind.crd.plural}/status", ("update",), "it is the only writer of this status")


def _core(resource: str, verbs: tuple[str, ...], why: str) -> Right:
    return Right(CORE, resource, verbs, why)


def _lease(service: str) -> tuple[Right, ...]:
    name = f"kubechain-{service}"
    return (
        Right(LEASES, "leases", ("create",), "the Lease of its leader"),
        Right(LEASES, "leases", ("get", "watch", "patch"), "the Lease of its leader", (name,)),
    )


_EVENTS = _core(
    "events", ("list", "create", "patch"), "tells what happens, and counts on what it told before a restart"
)
_SECRETS = _core("secrets", ("get", "watch"), "those that a spec names, one by one")
_TEXTS = _core("configmaps", ("get", "create"), "keeps the long texts of a Task, and looks whose one of that name is")

BOOTSTRAP = "bootstrap"
"""The Job that makes what is secret when everything is installed."""

MADE_SECRETS = (*(f"nats-{service}" for service in SERVICES), "nats-users", "nats-tls", "nats-ca")
"""Passwords of NATS, one for each service and all of them for the server; its certificate, and who vouches for it."""

RIGHTS: dict[str, ServiceRights] = {
    "task-controller": ServiceRights(
        everywhere=(
            _ours(Task, (*READ, "delete"), "reconciles them, reads what one continues, deletes what has had its time"),
            _status(Task),
            _ours(Agent, FOLLOW, "reconciles them"),
            _status(Agent),
            _ours(LLM, FOLLOW, "an Agent waits for its LLM"),
            _ours(MCPServer, FOLLOW, "an Agent waits for its servers and offers their tools"),
            _ours(ContactChannel, FOLLOW, "an Agent waits for its channels"),
            _ours(TaskRunToolCall, (*READ, "create", "patch"), "creates a turn's calls, cancels them with the Task"),
            _core("namespaces", FOLLOW, "reads the budget in a namespace's annotations"),
            _TEXTS,
            _EVENTS,
        ),
        at_home=(
            *_lease("task-controller"),
            _core("configmaps", ("create",), "the book of what namespaces have used"),
            Right(
                CORE, "configmaps", ("get", "patch"), "the book of what namespaces have used", ("kubechain-budgets",)
            ),
        ),
    ),
    "llm-gateway": ServiceRights(
        everywhere=(
            _ours(LLM, FOLLOW, "reconciles them"),
            _status(LLM),
            _ours(Task, GET, "is the answer still wanted?"),
            _ours(TaskRunToolCall, GET, "reads the results that a conversation refers to"),
            _core("configmaps", GET, "reads the long texts of a conversation"),
            _EVENTS,
        ),
        at_home=_lease("llm-gateway"),
        secrets=(_SECRETS,),
    ),
    "toolcall-controller": ServiceRights(
        everywhere=(
            _ours(TaskRunToolCall, (*READ, "patch"), "reconciles them, writes a channel's answer when time is up"),
            _status(TaskRunToolCall),
            _ours(TaskRunToolCall, (DECIDE_FOR,), "answers in the name of a channel's deadline"),
            _ours(Task, (*READ, "create", "patch"), "runs a sub-agent as a Task of its own, and cancels it"),
            _ours(MCPServer, READ, "a call waits for its server, and for the approval that it asks for"),
            _ours(ContactChannel, FOLLOW, "until when does a channel wait?"),
            _core("configmaps", ("get", "create"), "keeps the images of a result"),
            _EVENTS,
        ),
        at_home=_lease("toolcall-controller"),
    ),
    "mcp-host": ServiceRights(
        everywhere=(
            _ours(MCPServer, FOLLOW, "reconciles them"),
            _status(MCPServer),
            _ours(ContactChannel, FOLLOW, "is the channel that approves a server's calls ready?"),
            _EVENTS,
        ),
        at_home=_lease("mcp-host"),
        secrets=(_SECRETS,),
    ),
    "human-bridge": ServiceRights(
        everywhere=(
            _ours(ContactChannel, READ, "reconciles them"),
            _status(ContactChannel),
            _ours(TaskRunToolCall, (*READ, "patch"), "shows those that wait, and writes the answers down"),
            _ours(TaskRunToolCall, (DECIDE_FOR,), "writes down who answered by mail, Slack, link or page"),
            _ours(Task, GET, "shows what a question is about"),
            _ours(MCPServer, GET, "which channel approves the calls of a server?"),
            _core("configmaps", GET, "shows the long texts of a conversation"),
            Right("authentication.k8s.io", "tokenreviews", ("create",), "who signs in to the page?"),
            Right(
                "authorization.k8s.io", "subjectaccessreviews", ("create",), "what may who signed in see and answer?"
            ),
            _EVENTS,
        ),
        at_home=(
            *_lease("human-bridge"),
            _core("secrets", ("create",), "the key that signs links"),
            Right(CORE, "secrets", ("get", "watch", "patch"), "the key that signs links", ("kubechain-human-bridge",)),
        ),
        secrets=(_SECRETS,),
    ),
    BOOTSTRAP: ServiceRights(
        everywhere=(),
        at_home=(
            _core("secrets", ("create",), "makes the passwords and certificates"),
            Right(CORE, "secrets", ("get", "patch"), "keeps what exists", MADE_SECRETS),
        ),
    ),
}
