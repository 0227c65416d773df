"""Figures of this service on /metrics."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from kubechain_common.messages.tool import REASON_OUTCOME_UNKNOWN
from kubechain_common.telemetry.metrics import LATENCY_BUCKETS

TOOL_CALLS = Counter(
    "kubechain_tool_calls_total",
    "Tool calls answered, by the outcome and the reason that the call's status shows.",
    ["outcome", "reason"],
)
TOOL_CALLS.labels(
    "Failed", REASON_OUTCOME_UNKNOWN
)  # from the start: of a series that begins with 1 no increase is seen
TOOL_CALL_SECONDS = Histogram(
    "kubechain_tool_call_seconds", "From a request's arrival to its result.", buckets=LATENCY_BUCKETS
)
CONNECTIONS = Gauge("kubechain_mcp_connections", "Connections to MCP servers, by phase.", ["phase"])
CONNECTION_FAILURES = Counter("kubechain_mcp_connection_failures_total", "Connections that failed or were lost.")
SESSIONS = Gauge("kubechain_mcp_task_sessions", "Sessions of Tasks that this replica has.")
