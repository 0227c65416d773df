"""What the model has written of its next message so far, put together from what was heard of it. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from kubechain_common.messages.live import LLMDelta

GAP = "[...]"
"""Stands for what was not heard."""


@dataclass(frozen=True)
class Growth:
    """What to show next. ``begins`` says that a new text begins, ``retry`` that it is that of an attempt after one that
    failed.
    """

    text: str
    begins: bool = False
    attempt: int = 1
    retry: bool = False


class Transcript:
    """What the model has written for one Task. ``text`` is what was shown of the latest call to the model."""

    def __init__(self) -> None:
        self._key = (0, 0, 0)
        self._pieces: list[str] = []
        self._heard = 0
        self._completed = 0

    @property
    def text(self) -> str:
        return "".join(self._pieces)

    def take(self, delta: LLMDelta) -> Growth | None:
        """What the delta adds; None if it adds nothing, because it is known or of a call that is over."""
        key = (delta.turn, delta.attempt, delta.call)
        if key < self._key or delta.turn == self._completed:
            return None
        begins = key > self._key
        retry = begins and bool(self._pieces) and delta.turn == self._key[0]
        if begins:
            self._key, self._pieces, self._heard = key, [], 0
        known = self._heard - delta.offset
        new = delta.text if known < 0 else delta.text[known:]
        if not new:
            return None
        self._heard = delta.offset + len(delta.text)
        shown = GAP + new if known < 0 else new
        self._pieces.append(shown)
        return Growth(shown, begins, delta.attempt, retry)

    def complete(self, turn: int, content: str) -> str:
        """The rest of a text that was begun and, as its message shows, is complete: its last words may come later than
        the message, or never.
        """
        shown = self.text
        if turn != self._key[0] or not shown or not content.startswith(shown):
            return ""
        self._completed = turn
        rest = content[len(shown) :]
        self._pieces.append(rest)
        return rest
