"""What becomes of a message that can not be read: something that the call can show, rather than silence."""

from __future__ import annotations

from kubechain_common.messages import ObjectRef, ToolResult
from kubechain_common.messages.human import REASON_REQUEST_SENT, HumanResult
from kubechain_common.messages.tool import REASON_OUTCOME_UNKNOWN
from kubechain_common.messages.topology import parse_human_result_subject, parse_tool_result_subject


def build_unreadable_result(subject: str, reason: str) -> ToolResult | None:
    """The failure in place of the message on ``subject``; None for a subject that is no result's."""
    owner = parse_tool_result_subject(subject)
    if owner is None:
        return None
    namespace, call_uid = owner
    return ToolResult(
        call=ObjectRef(namespace=namespace, name="", uid=call_uid),
        outcome="Failed",
        reason=REASON_OUTCOME_UNKNOWN,
        error=f"The tool ran, but its result can not be read: {reason}",
    )


def build_unreadable_report(subject: str, reason: str) -> HumanResult | None:
    """The report in place of the one on ``subject``; None for a notice, which is repeated.

    There is a report only when asking has come to its end, so nobody is asked again: better not at all than twice.
    """
    owner = parse_human_result_subject(subject)
    if owner is None:
        return None
    namespace, call_uid = owner
    return HumanResult(
        call=ObjectRef(namespace=namespace, name="", uid=call_uid),
        outcome="Sent",
        reason=REASON_REQUEST_SENT,
        message=f"The request was probably sent, but the report of it can not be read: {reason}",
    )
