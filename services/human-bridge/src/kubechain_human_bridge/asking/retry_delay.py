"""When an attempt to reach the other side is repeated. Pure but for the jitter."""

from __future__ import annotations

from kubechain_common.kube.backoff import backoff_delay
from kubechain_human_bridge.channels.errors import ChannelError

UNAVAILABLE = (1.0, 60.0)
REFUSED = (30.0, 300.0)
"""First and longest delay: what was refused is rarely cured by time alone."""

LONGEST_WISH = 3600.0


def retry_delay(error: ChannelError, attempt: int) -> float:
    """Seconds to wait after attempt number ``attempt`` (from 1), at least as long as the other side asks for."""
    first, longest = UNAVAILABLE if error.retryable else REFUSED
    return max(backoff_delay(attempt - 1, first, longest), min(error.retry_after or 0.0, LONGEST_WISH))
