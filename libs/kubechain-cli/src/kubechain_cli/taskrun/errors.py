"""What can go wrong with a run. Every text is for the user: what is wrong, what to do.

Exception
└── RunError                  the root; never retryable as it is
    ├── UsageError            what was asked for does not exist or is not valid (exit code 2)
    ├── TaskDeletedError      somebody deleted the Task while we followed it (exit code 1)
    ├── TaskTimeoutError      the Task was not finished in time; it goes on (exit code 124)
    ├── UnwrittenAnswerError  the answer is there, and standard output does not take it (exit code 1)
    └── LiveTextError         what the model writes cannot be heard; the run goes on without
"""

from __future__ import annotations

from typing import ClassVar


class RunError(Exception):
    """Root of the tree; ``exit_code`` is the one of the command."""

    retryable: ClassVar[bool] = False
    exit_code: ClassVar[int] = 1


class UsageError(RunError):
    """What was asked for does not exist or is not valid."""

    exit_code = 2


class TaskDeletedError(RunError):
    """The Task is gone."""


class TaskTimeoutError(RunError):
    """The Task took longer than the user wanted to wait."""

    exit_code = 124


class UnwrittenAnswerError(RunError):
    """Standard output is full, closed, or of an encoding that lacks what the answer has."""


class LiveTextError(RunError):
    """There is no way to hear what the model writes while it writes it."""
