"""THE table of NATS users: one per service, and what each may do.

A service publishes and takes its own messages and nobody else's. It may make, inspect and change the streams that it
uses, because after a loss of the broker's storage whoever notices first makes them anew; it may not delete any, nor
touch the others. What comes back to it arrives below an inbox prefix of its own, so no service reads another's answers.

Two buckets are shared by those who use them: which calls have started (a word of a few bytes per call), and the
payloads that are over the server's max_payload, whose names nobody can guess.

https://docs.nats.io/running-a-nats-service/configuration/securing_nats/authorization
https://docs.nats.io/reference/reference-protocols/nats_api_reference
"""

from __future__ import annotations

from dataclasses import dataclass

from kubechain_common.messages.topology import (
    ALL_STREAMS,
    ANSWER_CHECKS,
    CLAIMS_BUCKET,
    CLAIMS_STREAM,
    HUMAN_REQUESTS,
    HUMAN_RESULTS,
    LLM_REQUESTS,
    LLM_RESULTS,
    REPLICA_ALIVE,
    SHARED_BUCKET,
    SHARED_STREAM,
    STARTED_CALLS_BUCKET,
    STARTED_CALLS_STREAM,
    TOOL_REQUESTS,
    TOOL_RESULTS,
    StreamSpec,
    handover_subject,
    llm_delta_subject,
    llm_health_key,
    llm_listening_subject,
    llm_rate_key,
    session_key,
    shared_subject,
    task_ended_subject,
    withdrawn_subject,
)

INBOXES = "_INBOX"
_ADVISORIES = ("$JS.EVENT.ADVISORY.STREAM.CREATED", "$JS.EVENT.ADVISORY.STREAM.DELETED")


@dataclass(frozen=True)
class UserRights:
    """What a user does with the streams. ``asks`` are the streams into which it publishes requests, and from which it
    takes them back.
    """

    asks: tuple[StreamSpec, ...] = ()
    answers: tuple[StreamSpec, ...] = ()
    """The streams into which it publishes what came of its work."""
    takes: tuple[StreamSpec, ...] = ()
    """The streams that it consumes, and clears of what was meant for a deleted object."""
    starts_calls: bool = False
    shares: tuple[str, ...] = ()
    """Keys of the shared bucket that it writes; a user that may read one may read all."""
    tells: tuple[str, ...] = ()
    """Core NATS subjects that it publishes."""
    hears: tuple[str, ...] = ()

    @property
    def streams(self) -> tuple[str, ...]:
        """The streams that it uses."""
        used = {spec.name for spec in (*self.asks, *self.answers, *self.takes)} | {CLAIMS_STREAM}
        used |= {STARTED_CALLS_STREAM} if self.starts_calls else set()
        used |= {SHARED_STREAM} if self.shares else set()
        return tuple(name for name in ALL_STREAMS if name in used)


USERS: dict[str, UserRights] = {
    "task-controller": UserRights(
        asks=(LLM_REQUESTS,), takes=(LLM_RESULTS,), starts_calls=True, tells=(task_ended_subject("*", "*"),)
    ),
    "llm-gateway": UserRights(
        takes=(LLM_REQUESTS,),
        answers=(LLM_RESULTS,),
        shares=(llm_health_key("*"), llm_rate_key("*")),
        tells=(llm_delta_subject("*", "*"),),
        hears=(llm_listening_subject("*", "*"),),
    ),
    "toolcall-controller": UserRights(
        asks=(TOOL_REQUESTS, HUMAN_REQUESTS), takes=(TOOL_RESULTS, HUMAN_RESULTS), starts_calls=True
    ),
    "mcp-host": UserRights(
        takes=(TOOL_REQUESTS,),
        answers=(TOOL_RESULTS,),
        starts_calls=True,
        shares=(session_key(">"),),
        # The last one: what a replica answers to another.
        tells=(REPLICA_ALIVE, handover_subject("*"), f"{INBOXES}.mcp-host.>"),
        hears=(REPLICA_ALIVE, handover_subject("*"), task_ended_subject("*", "*")),
    ),
    "human-bridge": UserRights(
        takes=(HUMAN_REQUESTS, ANSWER_CHECKS), answers=(HUMAN_RESULTS, ANSWER_CHECKS), starts_calls=True
    ),
}


def streams_of(user: str) -> tuple[str, ...]:
    """The streams that a user works with; all of them for anybody else, who is bound by nothing."""
    rights = USERS.get(user)
    return rights.streams if rights is not None else ALL_STREAMS


def build_publish_rights(user: str) -> tuple[str, ...]:
    """The subjects that the user may publish, requests to JetStream included."""
    rights = USERS[user]
    subjects = [subject for spec in (*rights.asks, *rights.answers) for subject in spec.subjects]
    for stream in rights.streams:
        subjects += [f"$JS.API.STREAM.{verb}.{stream}" for verb in ("CREATE", "UPDATE", "INFO")]
    for spec in rights.asks:
        subjects += [f"$JS.API.STREAM.MSG.{verb}.{spec.name}" for verb in ("GET", "DELETE")]
        subjects += map(withdrawn_subject, spec.subjects)
    for spec in rights.takes:
        subjects += [f"$JS.API.STREAM.{verb}.{spec.name}" for verb in ("PURGE", "MSG.GET")]
        subjects += [
            f"$JS.API.CONSUMER.LIST.{spec.name}",
            f"$JS.API.CONSUMER.CREATE.{spec.name}.>",
            f"$JS.API.CONSUMER.DURABLE.CREATE.{spec.name}.*",
            f"$JS.API.CONSUMER.DELETE.{spec.name}.*",
            f"$JS.API.CONSUMER.MSG.NEXT.{spec.name}.*",
            f"$JS.ACK.{spec.name}.>",
        ]
    if rights.starts_calls:
        subjects += [f"$KV.{STARTED_CALLS_BUCKET}.>", f"$JS.API.STREAM.MSG.GET.{STARTED_CALLS_STREAM}"]
    if rights.shares:
        subjects += [f"$KV.{SHARED_BUCKET}.{key}" for key in rights.shares]
        subjects += [*map(shared_subject, rights.shares), f"$JS.API.STREAM.MSG.GET.{SHARED_STREAM}"]
    return tuple(dict.fromkeys([*subjects, *_CLAIMS, *rights.tells]))


_CLAIMS = (
    f"$O.{CLAIMS_BUCKET}.C.*",
    f"$O.{CLAIMS_BUCKET}.M.*",
    "$JS.API.STREAM.NAMES",
    f"$JS.API.STREAM.PURGE.{CLAIMS_STREAM}",
    f"$JS.API.STREAM.MSG.GET.{CLAIMS_STREAM}",
    f"$JS.API.CONSUMER.CREATE.{CLAIMS_STREAM}",
    f"$JS.API.CONSUMER.CREATE.{CLAIMS_STREAM}.>",
    f"$JS.API.CONSUMER.DELETE.{CLAIMS_STREAM}.*",
    f"$JS.FC.{CLAIMS_STREAM}.>",
)


def build_subscribe_rights(user: str) -> tuple[str, ...]:
    """The subjects that the user may listen to: its own inboxes, what was taken back, and which streams came and
    went.
    """
    rights = USERS[user]
    withdrawn = [withdrawn_subject(subject) for spec in rights.takes for subject in spec.subjects]
    advisories = [f"{advisory}.*" for advisory in _ADVISORIES]
    shared = map(shared_subject, rights.shares)
    return (f"{inbox_prefix(user)}.>", *withdrawn, *rights.hears, *shared, *advisories)


def inbox_prefix(user: str) -> str:
    """The subject below which the answers to a user's requests arrive."""
    return f"{INBOXES}.{user}"
