"""Prometheus metrics of the controller runtime; served by the process that imports it."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

RECONCILE_TOTAL = Counter(
    "kubechain_reconcile_total",
    "Reconciles by outcome: success, requeue_after, conflict or error.",
    ["controller", "result"],
)
RECONCILE_SECONDS = Histogram(
    "kubechain_reconcile_seconds",
    "Duration of one reconcile.",
    ["controller"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60),
)
INFORMER_RELISTS = Counter("kubechain_informer_relists_total", "Complete lists, the first one included.", ["kind"])
INFORMER_UNREADABLE = Gauge(
    "kubechain_informer_unreadable", "Objects that are left out, because they can not be read as their kind.", ["kind"]
)
EVENTS_DROPPED = Counter("kubechain_events_dropped_total", "Events given up: queue full, or refused by the API server.")
LEADER = Gauge("kubechain_leader", "1 while this process holds the Lease.", ["lease"])
