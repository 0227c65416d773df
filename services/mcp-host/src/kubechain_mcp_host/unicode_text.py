"""Text that servers send need not be Unicode; ours is."""

from __future__ import annotations


def without_surrogates(text: str) -> str:
    """Half a surrogate pair, which a server may write and no UTF-8 text can hold, becomes U+FFFD."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
