"""What every service's /metrics has in common."""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest

LATENCY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Seconds: from one round trip to a patient model."""

CONTENT_TYPE = CONTENT_TYPE_LATEST


def render_metrics() -> bytes:
    """The default registry in Prometheus' text format, process metrics included."""
    return generate_latest(REGISTRY)
