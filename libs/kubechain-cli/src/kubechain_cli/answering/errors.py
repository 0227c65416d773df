"""What can go wrong with an answer. Every text is for the user: what is wrong, what to do.

Exception
└── AnswerError            the root; never retryable as it is (exit code 1: the call takes no answer now)
    ├── UnknownCallError   no call has this name (exit code 2)
    └── BadAnswerError     the answer itself can not be taken (exit code 2)
"""

from __future__ import annotations

from typing import ClassVar


class AnswerError(Exception):
    """Root of the tree; ``exit_code`` is the one of the command."""

    retryable: ClassVar[bool] = False
    exit_code: ClassVar[int] = 1


class UnknownCallError(AnswerError):
    """There is no such call."""

    exit_code = 2


class BadAnswerError(AnswerError):
    """What was given is no answer to this."""

    exit_code = 2
