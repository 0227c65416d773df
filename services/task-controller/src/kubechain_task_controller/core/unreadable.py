"""What becomes of a turn whose result can not be read: an error that ends it, rather than silence."""

from __future__ import annotations

from kubechain_common.messages import LLMCallError, LLMResult, ObjectRef
from kubechain_common.messages.topology import parse_llm_result_subject


def build_unreadable_result(subject: str, reason: str) -> LLMResult | None:
    """The error in place of the message on ``subject``; None for a notice, which nobody waits for."""
    owner = parse_llm_result_subject(subject)
    if owner is None:
        return None
    namespace, task_uid, turn, conversation = owner
    return LLMResult(
        task=ObjectRef(namespace=namespace, name="", uid=task_uid),
        turn=turn,
        conversation=conversation,
        outcome="Error",
        error=LLMCallError(message=f"the result of the turn can not be read: {reason}"),
    )
