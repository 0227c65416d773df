"""THE table of streams, subjects, consumers and buckets.

Subjects carry namespaces (a DNS label) and uids, never object names, because names may hold dots. Requests and
results each have one subject of their own per unit of work, so the stream itself tells whether a unit is already on
its way:

| stream                   | subject                                                | durable consumer       |
|--------------------------|--------------------------------------------------------|------------------------|
| KUBECHAIN_LLM_REQUESTS   | kubechain.llm.request.<llm-uid>.<ns>.<task-uid>.<t>.<c> | llm-<llm-uid>         |
| KUBECHAIN_LLM_RESULTS    | kubechain.llm.result.<ns>.<task-uid>.<t>.<c>           | task-controller        |
| KUBECHAIN_TOOL_REQUESTS  | kubechain.tool.request.<server-uid>.<ns>.<call-uid>    | mcp-<server-uid>       |
| KUBECHAIN_TOOL_RESULTS   | kubechain.tool.result.<ns>.<call-uid>                  | toolcall-controller    |
| KUBECHAIN_HUMAN_REQUESTS | kubechain.human.request.<channel-uid>.<ns>.<call-uid>  | human-<channel-uid>    |
| KUBECHAIN_HUMAN_RESULTS  | kubechain.human.result.<ns>.<call-uid>                 | toolcall-controller    |
| KUBECHAIN_ANSWER_CHECKS  | kubechain.answer.check.<channel-uid>.<ns>.<call-uid>   | answers-<channel-uid>  |

``<t>`` is the number of a turn, ``<c>`` a digest of what is said to the model in it.

All are work queues: a message leaves when it is acknowledged. Nothing here is the record of anything; the CRs are.

A request that was taken back is told on ``kubechain.withdrawn.<request subject>``: core NATS, no stream, for whoever
is at it. The consumer of a request subject listens there. That an entry of the shared bucket was written is told on
``kubechain.shared.<key>``, without its contents.

Replicas of mcp-host say that they live on ``kubechain.mcp.alive``, and hand calls over to the one that has their
session on ``kubechain.mcp.handover.<instance>``; that a Task has ended is told on
``kubechain.task.ended.<ns>.<task-uid>``: core NATS.

What a model writes is told on ``kubechain.llm.delta.<ns>.<task-uid>`` while somebody says on
``kubechain.llm.listening.<ns>.<task-uid>`` that they listen: core NATS, too, and nothing depends on it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StreamSpec:
    """A work-queue stream and the subjects that it takes."""

    name: str
    subjects: tuple[str, ...]


@dataclass(frozen=True)
class ConsumerSpec:
    """A durable consumer.

    ``ack_wait`` in seconds is how long the work of a dead process lies idle; a living one renews it by heartbeats.
    """

    stream: str
    durable: str
    filter_subject: str
    max_ack_pending: int
    ack_wait: float = 10.0


LLM_REQUESTS = StreamSpec("KUBECHAIN_LLM_REQUESTS", ("kubechain.llm.request.>",))
LLM_RESULTS = StreamSpec("KUBECHAIN_LLM_RESULTS", ("kubechain.llm.result.>",))
TOOL_REQUESTS = StreamSpec("KUBECHAIN_TOOL_REQUESTS", ("kubechain.tool.request.>",))
TOOL_RESULTS = StreamSpec("KUBECHAIN_TOOL_RESULTS", ("kubechain.tool.result.>",))
HUMAN_REQUESTS = StreamSpec("KUBECHAIN_HUMAN_REQUESTS", ("kubechain.human.request.>",))
HUMAN_RESULTS = StreamSpec("KUBECHAIN_HUMAN_RESULTS", ("kubechain.human.result.>",))
ANSWER_CHECKS = StreamSpec("KUBECHAIN_ANSWER_CHECKS", ("kubechain.answer.check.>",))
STREAMS = (LLM_REQUESTS, LLM_RESULTS, TOOL_REQUESTS, TOOL_RESULTS, HUMAN_REQUESTS, HUMAN_RESULTS, ANSWER_CHECKS)

STARTED_CALLS_BUCKET = "KUBECHAIN_STARTED_CALLS"
"""Key-value bucket: ``<namespace>/<call>`` is put here before the call's tool runs or its sub-agent's Task is made, and
``ask/<namespace>/<call>`` before a person is asked about it.
"""

SHARED_BUCKET = "KUBECHAIN_SHARED"
"""Key-value bucket of what replicas know together: of an LLM, ``health.<llm-uid>`` and ``rate.<llm-uid>``, and of an
MCPServer whose it is, ``session.<server-uid>`` or ``session.<server-uid>.<task-uid>``.
"""

REPLICA_ALIVE = "kubechain.mcp.alive"

CLAIMS_BUCKET = "KUBECHAIN_CLAIMS"
"""Object store of the payloads that are over the server's max_payload."""

# The streams behind the buckets, by the conventions of NATS.
STARTED_CALLS_STREAM = f"KV_{STARTED_CALLS_BUCKET}"
SHARED_STREAM = f"KV_{SHARED_BUCKET}"
CLAIMS_STREAM = f"OBJ_{CLAIMS_BUCKET}"
ALL_STREAMS = (*(spec.name for spec in STREAMS), STARTED_CALLS_STREAM, SHARED_STREAM, CLAIMS_STREAM)

ANY = "*"
"""In place of an LLM's or a server's uid: the requests of one unit of work, to whomever they went."""

LLM_MAX_IN_FLIGHT = 256
"""Requests to one LLM under way at a time, over all replicas, unless its maxConcurrency says otherwise."""
RESULTS_MAX_IN_FLIGHT = 1024
HUMAN_REQUESTS_MAX_PENDING = 100_000
"""A request that waits for its next attempt counts as delivered; each replica bounds what it asks at a time."""
ANSWER_CHECKS_MAX_PENDING = 100_000
"""A check that waits for its time counts as delivered."""


def llm_request_subject(llm_uid: str, namespace: str, task_uid: str, turn: int, conversation: str) -> str:
    """Where this conversation (``messages.llm.conversation_of``) is sent to the model as this turn."""
    return f"kubechain.llm.request.{llm_uid}.{namespace}.{task_uid}.{turn}.{conversation}"


def llm_result_subject(namespace: str, task_uid: str, turn: int, conversation: str) -> str:
    return f"kubechain.llm.result.{namespace}.{task_uid}.{turn}.{conversation}"


def parse_llm_request_subject(subject: str) -> tuple[str, str, int, str] | None:
    """(namespace, task uid, turn, conversation) of a request's subject."""
    parts = subject.split(".")
    if len(parts) != 8 or not parts[6].isdigit():
        return None
    return parts[4], parts[5], int(parts[6]), parts[7]


def llm_delta_subject(namespace: str, task_uid: str) -> str:
    """Where a Task's text is told while it is written."""
    return f"kubechain.llm.delta.{namespace}.{task_uid}"


def llm_listening_subject(namespace: str, task_uid: str) -> str:
    """Where it is said that somebody listens to a Task's text. Arguments may be ``*``."""
    return f"kubechain.llm.listening.{namespace}.{task_uid}"


def parse_llm_listening_subject(subject: str) -> tuple[str, str] | None:
    """(namespace, task uid) of such a subject."""
    parts = subject.split(".")
    return (parts[3], parts[4]) if len(parts) == 5 else None


def parse_llm_result_subject(subject: str) -> tuple[str, str, int, str] | None:
    """(namespace, task uid, turn, conversation) of a result's subject; None for the subjects below it, of notices."""
    parts = subject.split(".")
    if len(parts) != 7 or not parts[5].isdigit():
        return None
    return parts[3], parts[4], int(parts[5]), parts[6]


def parse_tool_result_subject(subject: str) -> tuple[str, str] | None:
    """(namespace, call uid) of a result's subject."""
    parts = subject.split(".")
    return (parts[3], parts[4]) if len(parts) == 5 else None


def withdrawn_subject(request_subject: str) -> str:
    """Where it is told that the request was taken back. The argument may hold wildcards."""
    return f"kubechain.withdrawn.{request_subject}"


def shared_subject(key: str) -> str:
    """Where it is told that the entry was written. The argument may hold wildcards."""
    return f"kubechain.shared.{key}"


def llm_health_key(llm_uid: str) -> str:
    return f"health.{llm_uid}"


def llm_rate_key(llm_uid: str) -> str:
    return f"rate.{llm_uid}"


def session_key(server_uid: str, task_uid: str = "") -> str:
    """The key of a session that all calls of the server share, or those of one Task. Arguments may be ``*``."""
    return f"session.{server_uid}.{task_uid}" if task_uid else f"session.{server_uid}"


def handover_subject(instance: str) -> str:
    """Where a replica of mcp-host takes calls of its sessions from others."""
    return f"kubechain.mcp.handover.{instance}"


def task_ended_subject(namespace: str, task_uid: str) -> str:
    """Where it is told that a Task has ended or was deleted. Arguments may be ``*``."""
    return f"kubechain.task.ended.{namespace}.{task_uid}"


def tool_request_subject(server_uid: str, namespace: str, call_uid: str) -> str:
    return f"kubechain.tool.request.{server_uid}.{namespace}.{call_uid}"


def tool_result_subject(namespace: str, call_uid: str) -> str:
    return f"kubechain.tool.result.{namespace}.{call_uid}"


def human_request_subject(channel_uid: str, namespace: str, call_uid: str) -> str:
    return f"kubechain.human.request.{channel_uid}.{namespace}.{call_uid}"


def human_result_subject(namespace: str, call_uid: str) -> str:
    return f"kubechain.human.result.{namespace}.{call_uid}"


def human_notice_subject(namespace: str, call_uid: str, attempt: int) -> str:
    """The subject of a notice. It is below the result's own, which is for the result alone."""
    return f"{human_result_subject(namespace, call_uid)}.retry.{attempt}"


def parse_human_result_subject(subject: str) -> tuple[str, str] | None:
    """(namespace, call uid) of a result's subject; None for the subjects below it, which carry notices."""
    parts = subject.split(".")
    return (parts[3], parts[4]) if len(parts) == 5 else None


def answer_check_subject(channel_uid: str, namespace: str, call_uid: str) -> str:
    return f"kubechain.answer.check.{channel_uid}.{namespace}.{call_uid}"


def llm_consumer(llm_uid: str, max_concurrency: int = LLM_MAX_IN_FLIGHT) -> ConsumerSpec:
    """Shared by all gateway replicas, so that one slow provider never holds up another.

    ``max_ack_pending`` is the LLM's maxConcurrency over all replicas.
    """
    return ConsumerSpec(LLM_REQUESTS.name, f"llm-{llm_uid}", f"kubechain.llm.request.{llm_uid}.>", max_concurrency)


def mcp_consumer(server_uid: str, max_concurrency: int) -> ConsumerSpec:
    """``max_ack_pending`` is the server's maxConcurrency over all replicas."""
    return ConsumerSpec(
        TOOL_REQUESTS.name, f"mcp-{server_uid}", f"kubechain.tool.request.{server_uid}.>", max_concurrency
    )


def human_consumer(channel_uid: str) -> ConsumerSpec:
    """Shared by all bridge replicas, so that one slow mail server never holds up another channel."""
    return ConsumerSpec(
        HUMAN_REQUESTS.name,
        f"human-{channel_uid}",
        f"kubechain.human.request.{channel_uid}.>",
        HUMAN_REQUESTS_MAX_PENDING,
    )


def answer_check_consumer(channel_uid: str) -> ConsumerSpec:
    return ConsumerSpec(
        ANSWER_CHECKS.name,
        f"answers-{channel_uid}",
        f"kubechain.answer.check.{channel_uid}.>",
        ANSWER_CHECKS_MAX_PENDING,
    )


LLM_RESULTS_CONSUMER = ConsumerSpec(
    LLM_RESULTS.name, "task-controller", "kubechain.llm.result.>", RESULTS_MAX_IN_FLIGHT, 5.0
)
TOOL_RESULTS_CONSUMER = ConsumerSpec(
    TOOL_RESULTS.name, "toolcall-controller", "kubechain.tool.result.>", RESULTS_MAX_IN_FLIGHT, 5.0
)
HUMAN_RESULTS_CONSUMER = ConsumerSpec(
    HUMAN_RESULTS.name, "toolcall-controller", "kubechain.human.result.>", RESULTS_MAX_IN_FLIGHT, 5.0
)
