"""What becomes of a call whose result can not be read: a failure that says so, rather than silence."""

from __future__ import annotations

from kubechain_common.messages import ObjectRef, ToolResult
from kubechain_common.messages.tool import REASON_OUTCOME_UNKNOWN
from kubechain_common.messages.topology import parse_tool_result_subject


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
