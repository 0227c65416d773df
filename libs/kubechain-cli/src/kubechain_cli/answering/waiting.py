"""What a tool call asks of a person. Pure functions of the objects."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from kubechain_common.api.tool_arguments import read_question
from kubechain_common.api.v1alpha1 import ContactChannel, TaskRunToolCall

Kind = Literal["Approval", "Question"]


@dataclass(frozen=True)
class Waiting:
    """One call that waits for somebody. ``deadline`` is None where the channel has none, or can not be read."""

    call: TaskRunToolCall
    agent: str = ""
    channel: str = ""
    deadline: datetime | None = None
    on_timeout: str = ""

    @property
    def kind(self) -> Kind:
        return "Question" if self.call.spec.tool_type == "HumanContact" else "Approval"

    @property
    def since(self) -> datetime | None:
        return self.call.status.start_time or self.call.metadata.creation_timestamp

    @property
    def content(self) -> str:
        """The question, or the arguments that are to be approved."""
        return read_question(self.call.spec.arguments) if self.kind == "Question" else self.call.spec.arguments

    def to_json(self) -> dict[str, Any]:
        """The call as JSON for scripts; what is not known is absent."""
        found = {
            "namespace": self.call.namespace,
            "name": self.call.name,
            "uid": self.call.uid,
            "kind": self.kind,
            "tool": self.call.spec.tool_ref.name,
            "agent": self.agent,
            "task": self.call.spec.task_run_ref.name,
            "channel": self.channel,
            "since": _iso(self.since),
            "deadline": _iso(self.deadline),
            "onTimeout": self.on_timeout,
            "question" if self.kind == "Question" else "arguments": self.content,
        }
        return {key: value for key, value in found.items() if value}


def waits(call: TaskRunToolCall) -> bool:
    """Whether somebody may answer this call now."""
    return call.awaits_human and not call.spec.cancel and call.metadata.deletion_timestamp is None


def build_waiting(call: TaskRunToolCall, agent: str, channel: ContactChannel | None) -> Waiting:
    """What is known of the call, with what its Task and its channel add."""
    if channel is None:
        return Waiting(call, agent)
    seconds, began = channel.spec.timeout_seconds, call.status.start_time
    deadline = began + timedelta(seconds=seconds) if seconds and began else None
    # A question that nobody answers fails, whatever the channel says of approvals.
    approves = call.spec.tool_type != "HumanContact"
    on_timeout = channel.spec.on_timeout or "Reject" if approves else "Fail"
    return Waiting(call, agent, channel.name, deadline, on_timeout if deadline else "")


def _iso(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}" if moment else ""
