"""When another LLM is asked, as a pure function of what went wrong."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kubechain_common.api.v1alpha1 import LLM
from kubechain_common.api.v1alpha1.conversation import Message
from kubechain_llm_gateway.admission.circuit import Block, Obstacle
from kubechain_llm_gateway.admission.fallback import (
    PATIENCE,
    choose_error,
    is_long,
    mark_answer,
    may_do_better,
    names_of_fallbacks,
)
from kubechain_llm_gateway.providers.errors import (
    BrokenReplyError,
    KeyRefusedError,
    ProviderError,
    RejectedRequestError,
    TransientProviderError,
    UnreachableProviderError,
    UnusableReplyError,
)


@pytest.mark.parametrize(
    ("error", "at_once", "in_the_end"),
    [
        (KeyRefusedError("no", status_code=401), True, True),
        (KeyRefusedError("no", status_code=403), True, True),
        (RejectedRequestError("no such model", status_code=404), True, True),
        (RejectedRequestError("pay", status_code=402), True, True),
        (RejectedRequestError("quota", status_code=429), True, True),
        (RejectedRequestError("too long", status_code=400), False, False),
        (RejectedRequestError("too large", status_code=413), False, False),
        (RejectedRequestError("unknown parameter", status_code=422), False, False),
        (UnusableReplyError("said nothing"), False, False),
        (TransientProviderError("overloaded", status_code=529), True, True),
        (TransientProviderError("overloaded", status_code=503), True, True),
        (TransientProviderError("slow down", status_code=429, retry_after=PATIENCE + 1), True, True),
        (TransientProviderError("slow down", status_code=429, retry_after=1), False, True),
        (TransientProviderError("broke", status_code=500), False, True),
        (UnreachableProviderError("refused"), False, True),
        (BrokenReplyError("no JSON"), False, True),
    ],
)
def test_who_may_do_better(error: ProviderError, at_once: bool, in_the_end: bool) -> None:
    assert may_do_better(error, last_attempt=False, blocked=False) is at_once
    assert may_do_better(error, last_attempt=True, blocked=False) is in_the_end


def test_what_closed_a_provider_to_everybody_may_go_elsewhere_at_once() -> None:
    assert may_do_better(UnreachableProviderError("refused"), last_attempt=False, blocked=True)
    assert not may_do_better(RejectedRequestError("too long", status_code=400), last_attempt=False, blocked=True)
    short = TransientProviderError("slow down", status_code=429, retry_after=1)
    assert not may_do_better(short, last_attempt=False, blocked=True), "it is left alone for a moment only"


@pytest.mark.parametrize(("until", "long"), [(None, True), (100.0 + PATIENCE, False), (101.0 + PATIENCE, True)])
def test_what_is_not_waited_for(until: float | None, long: bool) -> None:
    assert is_long(Block(Obstacle.PAUSED, "", until), 100.0) is long


def test_each_fallback_counts_once_and_never_the_llm_itself(build_llm: Callable[..., LLM]) -> None:
    llm = build_llm(fallbacks=[{"name": name} for name in ("b", "gpt-4o", "a", "b")])
    assert names_of_fallbacks(llm) == ["b", "a"]


def test_which_error_counts() -> None:
    final, passing = RejectedRequestError("final"), TransientProviderError("passing")
    other = RejectedRequestError("other")
    assert choose_error(final, [other]) is final
    assert choose_error(final, [other, passing]) is passing
    assert choose_error(passing, [other]) is passing
    assert choose_error(None, [other]) is None
    assert choose_error(None, [other, passing]) is passing


def test_an_answer_without_data_stays_as_it_is(build_llm: Callable[..., LLM]) -> None:
    message = Message(role="assistant", content="hi")
    assert mark_answer(message, build_llm()) is message
