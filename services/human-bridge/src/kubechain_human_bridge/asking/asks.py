"""What a person is asked: the request, with the call and its Task as they are now. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Protocol

from kubechain_common.api.tool_arguments import read_question
from kubechain_common.api.v1alpha1 import ContactChannel, Task, TaskRunToolCall
from kubechain_common.api.v1alpha1.status import shorten
from kubechain_common.messages import ObjectRef
from kubechain_common.messages.human import HumanRequest
from kubechain_human_bridge.channels.base import Ask, Kind
from kubechain_human_bridge.channels.registry import find_road

MAX_USER_MESSAGE = 4096


class Links(Protocol):
    """Makes the links that a request carries."""

    def page_link(self, call: ObjectRef) -> str:
        """The link to the request, which is shown to whoever signs in."""
        ...

    def answer_link(self, call: ObjectRef, kind: Kind, by: str, expires_at: datetime | None = None) -> str:
        """The link that takes one answer from ``by`` without signing in, until ``expires_at``. Raises
        ChannelUnavailableError.
        """
        ...


def build_ask(
    request: HumanRequest,
    call: TaskRunToolCall,
    task: Task | None,
    channel: ContactChannel,
    links: Links,
) -> Ask:
    """The request to the person; ``task`` is None when it is gone, and the call is about to follow.

    Raises ChannelUnavailableError while no link can be made.
    """
    expires_at = find_expiry(call, channel)
    answer_link = ""
    if channel.spec.email is not None and find_road(channel.spec) == "smtp":
        # Only a mail goes to one person alone, who is so named in the link.
        answer_link = links.answer_link(request.call, request.kind, channel.spec.email.address, expires_at)
    return Ask(
        call=request.call,
        kind=request.kind,
        external_call_id=request.external_call_id,
        run_id=request.run_id,
        task=call.spec.task_run_ref.name,
        agent=task.spec.agent_ref.name if task is not None else "",
        tool=call.spec.tool_ref.name,
        arguments=call.spec.arguments,
        message=read_question(call.spec.arguments) if request.kind == "Contact" else "",
        user_message=shorten(find_user_message(task), MAX_USER_MESSAGE) if task is not None else "",
        requested_at=request.requested_at,
        expires_at=expires_at,
        page_link=links.page_link(request.call),
        answer_link=answer_link,
    )


def find_user_message(task: Task) -> str:
    """What the Task was asked to do, or was asked last."""
    if task.spec.user_message is not None:
        return task.spec.user_message
    given = [message.content for message in task.spec.context_window or () if message.role == "user"]
    return given[-1] if given else ""


def find_expiry(call: TaskRunToolCall, channel: ContactChannel) -> datetime | None:
    """When the channel's deadline ends the waiting."""
    if channel.spec.timeout_seconds is None or call.status.start_time is None:
        return None
    try:
        return call.status.start_time + timedelta(seconds=channel.spec.timeout_seconds)
    except OverflowError:
        return None
