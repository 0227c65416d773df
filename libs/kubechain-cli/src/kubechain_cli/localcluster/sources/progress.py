"""How sources tell what they do; the terminal's side of it is in ``kubechain_cli.console``."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol


class Step(Protocol):
    """One long step that is shown while it runs."""

    def advance(self, done: float, total: float | None, detail: str = "") -> None:
        """So much is done (bytes, packages); ``total`` is None while nobody knows."""


class Progress(Protocol):
    """Where a source reports to."""

    def note(self, text: str) -> None:
        """One line that stays."""

    def step(self, title: str, *, size: bool = False) -> AbstractContextManager[Step]:
        """Show a step inside the ``with``; ``size`` says that it counts bytes."""
