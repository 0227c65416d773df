"""What ends a command that leaves nothing behind, and what it does not hear once it cleans up."""

from __future__ import annotations

import signal

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def ending_signals() -> tuple[signal.Signals, ...]:
    """All of them; but without the one of a closed terminal where that is ignored, as ``nohup`` has it."""
    return tuple(n for n in ENDING if n != signal.SIGHUP or signal.getsignal(n) is not signal.SIG_IGN)


def ignore_ending_signals() -> None:
    """From now on, for this process and for those that it starts."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)
