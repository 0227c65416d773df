"""The one sentence in which a guard says why it had to end its server."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_MAX_BYTES = 1024


class GuardReport:
    """A pipe that only the guard can write. It does so before the server's output closes, so whoever sees that can read
    it.
    """

    def __init__(self) -> None:
        self._reader = -1
        self._text = b""

    def text(self) -> str:
        """The sentence; empty while there is none."""
        if self._reader >= 0:
            with suppress(BlockingIOError):
                self._text += os.read(self._reader, _MAX_BYTES)
        return self._text.decode(errors="replace")

    @contextmanager
    def pipe(self) -> Iterator[int]:
        """The descriptor for the guard; the report can be read after the context too."""
        self._reader, writer = os.pipe()
        os.set_blocking(self._reader, False)
        try:
            yield writer
        finally:
            self.text()
            for descriptor in (self._reader, writer):
                os.close(descriptor)
            self._reader = -1
