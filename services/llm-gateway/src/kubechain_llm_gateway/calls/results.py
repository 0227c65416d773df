"""The messages that the gateway sends back. Pure."""

from __future__ import annotations

import hashlib

from kubechain_common.api.v1alpha1 import LLM
from kubechain_common.messages import LLMCallError, LLMRequest, LLMResult, ObjectRef
from kubechain_common.messages.topology import llm_result_subject, parse_llm_request_subject
from kubechain_common.messaging.delivery import Delivery, Poison
from kubechain_llm_gateway.admission.fallback import mark_answer
from kubechain_llm_gateway.providers.base import Completion


def build_answer(
    delivery: Delivery[LLMRequest], completion: Completion, other: LLM | None = None, reason: str = ""
) -> LLMResult:
    """What the model said; ``other`` is the fallback that was asked, and ``reason`` why."""
    request = delivery.message
    return LLMResult(
        task=request.task,
        turn=request.turn,
        conversation=request.conversation,
        outcome="Message",
        message=mark_answer(completion.message, other) if other is not None else completion.message,
        usage=completion.usage,
        stop_reason=completion.stop_reason,
        incomplete=completion.incomplete,
        llm=request.llm,
        answered_by=ObjectRef.of(other) if other is not None else None,
        fallback_reason=reason,
        attempt=delivery.attempt,
    )


def build_failure(delivery: Delivery[LLMRequest], problem: LLMCallError) -> LLMResult:
    """Why there is no answer, and will be none."""
    request = delivery.message
    return LLMResult(
        task=request.task,
        turn=request.turn,
        conversation=request.conversation,
        outcome="Error",
        error=problem,
        attempt=delivery.attempt,
    )


def build_notice(delivery: Delivery[LLMRequest], problem: LLMCallError, retry_in: float | None) -> LLMResult:
    """Why there is no answer yet.

    ``retry_in`` seconds, or None when a change of the LLM or its Secret is waited for.
    """
    failure = build_failure(delivery, problem)
    return failure.model_copy(update={"outcome": "Retrying", "retry_in_seconds": retry_in})


def result_subject(result: LLMResult) -> str:
    """The subject of an answer, or of the reason why there is none."""
    return llm_result_subject(result.task.namespace, result.task.uid, result.turn, result.conversation)


def notice_subject(notice: LLMResult) -> str:
    """The subject of a notice. It is below the result's own, which is for the result alone.

    Each notice that is to be seen has one: an attempt may wait for several reasons before it fails, and a subject takes
    no second message while the first is on its way.
    """
    subject = f"{result_subject(notice)}.retry.{notice.attempt}"
    if notice.retry_in_seconds is not None or notice.error is None:
        return subject
    return f"{subject}.waiting.{hashlib.sha256(notice.error.message.encode()).hexdigest()[:8]}"


def build_poison_result(poison: Poison) -> LLMResult | None:
    """The failure for a request that cannot be read. The subject tells whose it is, because the payload may say
    anything.
    """
    parsed = parse_llm_request_subject(poison.subject)
    if parsed is None:
        return None
    namespace, uid, turn, conversation = parsed
    problem = LLMCallError(message=f"llm-gateway cannot read the request: {poison.reason}")
    task = ObjectRef(namespace=namespace, name="", uid=uid)
    return LLMResult(
        task=task, turn=turn, conversation=conversation, outcome="Error", error=problem, attempt=poison.attempt
    )
