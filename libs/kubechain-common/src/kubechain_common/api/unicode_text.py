"""Text that models and servers write need not be Unicode; ours is."""

from __future__ import annotations


def mend(text: str) -> str:
    """Half a surrogate pair, of a text cut in UTF-16 or an escape in JSON, becomes U+FFFD: no encoder takes it."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
