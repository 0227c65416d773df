"""Takes secrets out of text that others will read: error sentences, stderr of a server, results of its tools."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import quote

_USERINFO = re.compile(r"(?<=://)[^/\s@'\"]+@")
_MASK = "***"
_MIN_IN_ERRORS = 4
_MIN_IN_RESULTS = 8
"""A shorter secret value is likelier to be an everyday word ("true", "admin") that a result may hold for its own
reasons.
"""


class Scrubber:
    """Knows the secret values of one server, in the forms in which they tend to be printed."""

    def __init__(self, values: Iterable[str]) -> None:
        forms: set[str] = set()
        for value in values:
            # A header's secret is often "Bearer <token>", and what leaks is the token alone.
            for part in (value, value.strip(), *(p for p in value.split() if len(p) >= _MIN_IN_RESULTS)):
                forms.update((part, quote(part, safe="")))
        self._forms = sorted((f for f in forms if len(f) >= _MIN_IN_ERRORS), key=len, reverse=True)

    def scrub(self, text: str) -> str:
        """For errors and logs: masks every secret value, and the user and password of every URL."""
        return _USERINFO.sub(_MASK + "@", self._mask(text, _MIN_IN_ERRORS))

    def scrub_result(self, text: str) -> str:
        """For what a tool returned: masks secret values that are long enough to be nothing else."""
        return self._mask(text, _MIN_IN_RESULTS)

    def _mask(self, text: str, min_length: int) -> str:
        for form in self._forms:
            if len(form) < min_length:
                break
            text = text.replace(form, _MASK)
        return text
