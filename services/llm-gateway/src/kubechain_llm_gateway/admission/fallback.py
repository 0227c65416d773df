"""When another LLM is asked in place of the one that a Task has, and which. Pure.

An LLM names its fallbacks in ``spec.fallbacks``. They are tried in their order, each once a request, and theirs are not
followed, so there are no circles. Another provider is asked where it may do better: this one is down, has asked to be
left alone for long, is overloaded, does not take our key or does not know the model. What is wrong with the request
itself would be wrong there, too.
"""

from __future__ import annotations

from collections.abc import Sequence

from kubechain_common.api.v1alpha1 import LLM
from kubechain_common.api.v1alpha1.conversation import Message
from kubechain_llm_gateway.admission.circuit import Block, read_pause
from kubechain_llm_gateway.providers.errors import KeyRefusedError, ProviderError

PATIENCE = 10.0
"""Seconds that a provider may ask us to wait before another is asked."""

ANSWERED_BY = "llm"
"""Key in the provider_data of a fallback's message, for the uid of that LLM."""

_OVERLOADED = frozenset({503, 529})
_ELSEWHERE = frozenset({402, 404, 429})
"""Statuses of refusals for good that are about the account or the model: to be paid, unknown, used up."""


class ProviderBlockedError(Exception):
    """The call was not made, because its provider must not be called for a while."""

    def __init__(self, block: Block) -> None:
        super().__init__(block.sentence)
        self.block = block


def is_long(block: Block, now: float) -> bool:
    """Whether the block lasts so long that another LLM had better be asked meanwhile."""
    return block.until is None or block.until - now > PATIENCE


def may_do_better(error: ProviderError, *, last_attempt: bool, blocked: bool) -> bool:
    """Whether another provider may answer the request that this one did not.

    ``blocked``: nobody may call this one any more for now.
    """
    if isinstance(error, KeyRefusedError):
        return True
    if not error.retryable:
        return error.status_code in _ELSEWHERE
    pause = read_pause(error)
    if pause is not None and error.status_code not in _OVERLOADED:
        return last_attempt or pause > PATIENCE
    return last_attempt or blocked or error.status_code in _OVERLOADED


def names_of_fallbacks(llm: LLM) -> list[str]:
    """The names of the LLM's fallbacks, each once and without its own."""
    return [name for name in dict.fromkeys(ref.name for ref in llm.spec.fallbacks) if name != llm.name]


def choose_error(first: ProviderError | None, others: Sequence[ProviderError]) -> ProviderError | None:
    """Which of the errors counts when nobody answered: one that may pass, else the LLM's own, if it was asked."""
    asked = ([first] if first is not None else []) + list(others)
    return next((error for error in asked if error.retryable), first)


def hide_foreign_data(messages: Sequence[Message], own: LLM, asked: LLM) -> list[Message]:
    """The messages with ``provider_data`` of ``asked`` only: what a provider adds is for the LLM that it served.

    A message that names no LLM was answered by ``own``.
    """
    return [
        message.model_copy(update={"provider_data": None})
        if message.provider_data and message.provider_data.get(ANSWERED_BY, own.uid) != asked.uid
        else message
        for message in messages
    ]


def mark_answer(message: Message, other: LLM) -> Message:
    """The fallback's message, marked so that its data goes to no other LLM."""
    if not message.provider_data:
        return message
    return message.model_copy(update={"provider_data": {**message.provider_data, ANSWERED_BY: other.uid}})
