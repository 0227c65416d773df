"""Whether a tool call may run, here and now (pure).

A tool runs at most once, unless the server says that twice does no harm (readOnlyHint, idempotentHint) or the
MCPServer's owner says so (onLostExecution: Retry). What is known of earlier runs is one key per call in a bucket that
may be lost with the broker: its silence counts only for calls that are younger than the bucket itself. A key that says
"cancelled" stops every tool, also one that may run twice.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

from kubechain_common.api.tool_arguments import read_arguments
from kubechain_common.api.v1alpha1.mcpserver import MCPTool
from kubechain_common.messaging import Claim

UNKNOWN_AFTER_HOST_DEATH = (
    "The outcome of the call is unknown: the tool was started, but its host died before the result was recorded. "
    "It may or may not have taken effect."
)


class Execution(StrEnum):
    RUN = "Run"
    RUN_AGAIN = "RunAgain"
    OUTCOME_UNKNOWN = "OutcomeUnknown"
    CANCELLED = "Cancelled"


def unknown_after_lost_connection(why: str) -> str:
    """The sentence for a call that ran when its connection was lost; ``why`` is a clause that says how."""
    return (
        "The outcome of the call is unknown: the connection to the MCP server was lost while the tool was running "
        f"({why.rstrip('.')}). It may or may not have taken effect."
    )


def may_run_again(tool: MCPTool, on_lost_execution: Literal["Fail", "Retry"] | None) -> bool:
    """Whether a call that may have run already does no harm by running again."""
    hints = tool.annotations
    declared = hints is not None and bool(hints.read_only_hint or hints.idempotent_hint)
    return declared or on_lost_execution == "Retry"


def asks_age(claim: Claim, *, repeatable: bool) -> bool:
    """Whether it matters how old the record of claims is: to find out takes a look at the broker."""
    return claim is Claim.GRANTED and not repeatable


def decide_execution(
    claim: Claim, *, repeatable: bool, requested_at: datetime, record_created_at: datetime | None
) -> Execution:
    """What to do with a call, by what came of its claim; ``record_created_at`` is None where ``asks_age`` is false.

    A granted claim proves nothing for a call that is older than the record of claims: it counts as started, which
    matters where the tool may not run twice.
    """
    match claim:
        case Claim.CANCELLED:
            return Execution.CANCELLED
        case Claim.TAKEN:
            return Execution.RUN_AGAIN if repeatable else Execution.OUTCOME_UNKNOWN
        case Claim.GRANTED:
            is_proof = record_created_at is not None and requested_at >= record_created_at
            return Execution.RUN if repeatable or is_proof else Execution.OUTCOME_UNKNOWN


def parse_arguments(text: str) -> dict[str, Any]:
    """The arguments of a call; models write nothing at all for a tool that takes none. Raises InvalidArgumentsError."""
    return read_arguments(text) if text.strip() else {}
