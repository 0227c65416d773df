"""The span and the metrics of a call, by the names of OpenTelemetry's GenAI conventions where there are such.

Beside those, ``kubechain_llm_requests`` tells how calls ended in words of our own. The model that a server says it used
is a label, so only so many of them are told apart.
"""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, Sequence

from prometheus_client import Counter, Histogram

from kubechain_common.api.v1alpha1 import LLM
from kubechain_common.api.v1alpha1.conversation import Message
from kubechain_common.api.v1alpha1.status import SpanContext
from kubechain_common.telemetry.metrics import LATENCY_BUCKETS
from kubechain_common.telemetry.tracing import Attributes, Span, span
from kubechain_llm_gateway.calls import genai_attributes as genai
from kubechain_llm_gateway.providers.base import Completion, OnDelta
from kubechain_llm_gateway.providers.errors import ProviderError

REQUESTS = Counter(
    "kubechain_llm_requests",
    "Calls to LLM providers by outcome: ok, retryable_error, error or cancelled.",
    ["provider", "outcome"],
)
SECONDS = Histogram("kubechain_llm_request_seconds", "How long a provider took.", ["provider"], buckets=LATENCY_BUCKETS)
TOKENS = Counter(
    "kubechain_llm_tokens",
    "Tokens as the providers counted them, by direction: input or output.",
    ["provider", "direction"],
)

_SECONDS_BUCKETS = tuple(0.01 * 2**power for power in range(14))
_TOKEN_BUCKETS = tuple(4**power for power in range(14))
_LABELS = ("gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model", "server_address")
_MAX_MODELS = 100
_OTHER = "_OTHER"

DURATION = Histogram(
    "gen_ai_client_operation_duration_seconds",
    "GenAI operation duration.",
    [*_LABELS, "gen_ai_response_model", "error_type"],
    buckets=_SECONDS_BUCKETS,
)
FIRST_CHUNK = Histogram(
    "gen_ai_client_operation_time_to_first_chunk_seconds",
    "Time to the first chunk of a streamed reply, from when the request was sent.",
    _LABELS,
    buckets=_SECONDS_BUCKETS,
)
TOKEN_USAGE = Histogram(
    "gen_ai_client_token_usage",
    "Input and output tokens of an operation.",
    [*_LABELS, "gen_ai_response_model", "gen_ai_token_type"],
    buckets=_TOKEN_BUCKETS,
)

Call = Callable[[OnDelta], Awaitable[Completion]]


class _Observation:
    """Measures one call, and passes on what is heard of its reply."""

    def __init__(self, llm: LLM, on_delta: OnDelta | None) -> None:
        server = genai.server_of(llm)
        model = (llm.spec.parameters and llm.spec.parameters.model) or ""
        self._labels = (genai.OPERATION, genai.provider_name(llm), model, server[0] if server else "")
        self._provider = llm.spec.provider
        self._on_delta = on_delta
        self._started = time.perf_counter()
        self._first: float | None = None

    def hear(self, text: str) -> None:
        if self._first is None:
            self._first = time.perf_counter() - self._started
        if self._on_delta is not None:
            self._on_delta(text)

    def end(self, outcome: str, error: str, completion: Completion | None) -> None:
        seconds = time.perf_counter() - self._started
        REQUESTS.labels(self._provider, outcome).inc()
        SECONDS.labels(self._provider).observe(seconds)
        answered_by = _known_model(completion.response_model) if completion else ""
        DURATION.labels(*self._labels, answered_by, error).observe(seconds)
        if self._first is not None:
            FIRST_CHUNK.labels(*self._labels).observe(self._first)
        if completion is None:
            return
        counts = {"input": completion.usage.input_tokens, "output": completion.usage.output_tokens}
        for direction, count in counts.items():
            TOKENS.labels(self._provider, direction).inc(count)
            TOKEN_USAGE.labels(*self._labels, answered_by, direction).observe(count)


async def observe_call(
    llm: LLM,
    trace: SpanContext | None,
    call: Call,
    *,
    messages: Sequence[Message],
    on_delta: OnDelta | None,
) -> Completion:
    """Make the call within a span below ``trace``, and count it.

    ``messages`` are those that the call sends; ``on_delta`` hears of the reply as the call does.
    """
    attributes = genai.build_request_attributes(llm)
    observation = _Observation(llm, on_delta)
    outcome, failure, completion = "cancelled", "cancelled", None
    try:
        with span(f"chat {attributes['gen_ai.request.model']}", trace, kind="client", attributes=attributes) as current:
            captures = current.is_recorded and genai.captures_messages(os.environ)
            if captures:
                _set_all(current, genai.build_input_attributes(messages))
            try:
                completion = await call(observation.hear)
            except ProviderError as error:
                outcome = "retryable_error" if error.retryable else "error"
                failure = str(error.status_code or type(error).__name__)
                current.set_attribute("error.type", failure)
                raise
            except Exception as error:
                outcome, failure = "error", type(error).__name__
                current.set_attribute("error.type", failure)
                raise
            outcome, failure = "ok", ""
            _set_all(current, genai.build_response_attributes(completion))
            if captures:
                _set_all(current, genai.build_output_attributes(completion))
    finally:
        observation.end(outcome, failure, completion)
    return completion


def _set_all(current: Span, attributes: Attributes) -> None:
    for key, value in attributes.items():
        current.set_attribute(key, value)


_models: set[str] = set()


def _known_model(model: str) -> str:
    if model and model not in _models:
        if len(_models) >= _MAX_MODELS:
            return _OTHER
        _models.add(model)
    return model
