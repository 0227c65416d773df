"""What can go wrong with a demo. Every text is for the user: what is wrong, what to do.

Exception
└── DemoError          the root; never retryable as it is
    ├── SetupError     something the demo needs did not start
    └── CommandError   a command of the walk failed; it says what to look at
"""

from __future__ import annotations

from typing import ClassVar

from kubechain_cli.demo.walk import Command


class DemoError(Exception):
    """Root of the tree."""

    retryable: ClassVar[bool] = False


class SetupError(DemoError):
    """Something that the demo needs did not start."""


class CommandError(DemoError):
    """A command of the walk failed."""

    def __init__(self, command: Command, reason: str) -> None:
        super().__init__(f"{command.shown}: {reason}")
        self.command = command
