"""What holds calls back, on /metrics."""

from __future__ import annotations

import contextlib

from prometheus_client import Gauge

from kubechain_common.api.v1alpha1 import LLM
from kubechain_llm_gateway.admission.circuit import Circuit, Health, circuit_of

WAITING = Gauge(
    "kubechain_llm_requests_waiting",
    "Requests that wait, by cause: provider or rate limit.",
    ["namespace", "llm", "cause"],
)
PROVIDER, RATE_LIMIT = "provider", "rate limit"
"""Causes: the provider is down or asks to be left alone; the LLM's own limit."""

CIRCUIT = Gauge("kubechain_llm_circuit", "0 closed, 1 on trial, 2 open: no calls but probes.", ["namespace", "llm"])
PAUSED = Gauge(
    "kubechain_llm_paused_until_seconds",
    "Until when the provider asks to be left alone, in seconds since the epoch; 0: not.",
    ["namespace", "llm"],
)

_NUMBERS = {Circuit.CLOSED: 0, Circuit.TRIAL: 1, Circuit.OPEN: 2}


def show_health(llm: LLM, health: Health) -> None:
    """Shows the provider's health as all replicas know it."""
    CIRCUIT.labels(llm.namespace, llm.name).set(_NUMBERS[circuit_of(health, llm.metadata.generation)])
    PAUSED.labels(llm.namespace, llm.name).set(health.paused_until)


def forget_metrics(llm: LLM) -> None:
    """Drops the figures of an LLM that is gone; those of calls that still wait for it stay."""
    for gauge in (CIRCUIT, PAUSED):
        with contextlib.suppress(KeyError):
            gauge.remove(llm.namespace, llm.name)
