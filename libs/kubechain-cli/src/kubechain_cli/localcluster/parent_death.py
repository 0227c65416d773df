"""A child must not outlive the supervisor, even when that is killed with SIGKILL.

Linux has PR_SET_PDEATHSIG for it. Elsewhere the next ``up`` or ``down`` ends what the state file still names.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1


def die_with_parent() -> Callable[[], None] | None:
    """A ``preexec_fn`` that ties the child's life to the calling process, or None where the system cannot."""
    if sys.platform != "linux":
        return None
    # Resolved before the fork: after it only async-signal-safe work is allowed.
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def tie() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return tie
