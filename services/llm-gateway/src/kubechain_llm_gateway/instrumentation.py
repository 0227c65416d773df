"""The span and the metrics of a call, by the names of OpenTelemetry's GenAI conventions where there are such."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from prometheus_client import Counter, Histogram

from kubechain_common.api.v1alpha1 import LLM
from kubechain_common.api.v1alpha1.status import SpanContext
from kubechain_common.telemetry.metrics import LATENCY_BUCKETS
from kubechain_common.telemetry.tracing import Span, span
from kubechain_llm_gateway.providers.base import Completion
from kubechain_llm_gateway.providers.errors import ProviderError

REQUESTS = Counter("kubechain_llm_requests", "Calls to LLM providers.", ["provider", "outcome"])
SECONDS = Histogram("kubechain_llm_request_seconds", "How long a provider took.", ["provider"], buckets=LATENCY_BUCKETS)
TOKENS = Counter("kubechain_llm_tokens", "Tokens as the providers counted them.", ["provider", "direction"])


async def observe_call(llm: LLM, trace: SpanContext | None, call: Callable[[], Awaitable[Completion]]) -> Completion:
    """Make the call within a span below ``trace``, and count it."""
    provider = llm.spec.provider
    model = (llm.spec.parameters and llm.spec.parameters.model) or ""
    attributes = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": provider, "gen_ai.request.model": model}
    started = time.perf_counter()
    outcome = "cancelled"
    try:
        with span(f"chat {model}", trace, kind="client", attributes=attributes) as current:
            try:
                completion = await call()
            except ProviderError as error:
                outcome = "retryable_error" if error.retryable else "error"
                current.set_attribute("error.type", str(error.status_code or type(error).__name__))
                raise
            except Exception:
                outcome = "error"
                raise
            outcome = "ok"
            _describe(current, completion)
    finally:
        REQUESTS.labels(provider, outcome).inc()
        SECONDS.labels(provider).observe(time.perf_counter() - started)
    TOKENS.labels(provider, "input").inc(completion.usage.input_tokens)
    TOKENS.labels(provider, "output").inc(completion.usage.output_tokens)
    return completion


def _describe(current: Span, completion: Completion) -> None:
    current.set_attribute("gen_ai.usage.input_tokens", completion.usage.input_tokens)
    current.set_attribute("gen_ai.usage.output_tokens", completion.usage.output_tokens)
    current.set_attribute("gen_ai.response.finish_reasons", completion.stop_reason)
