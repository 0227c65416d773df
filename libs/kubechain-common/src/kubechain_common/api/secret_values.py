"""A value of a Secret that a spec names, or the sentence that says what is missing. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class SecretProblem:
    """Why there is no value, in a sentence for the user."""

    detail: str


def find_value(namespace: str, name: str, key: str, secret: Mapping[str, str] | None) -> str | SecretProblem:
    """The value under ``key`` in ``secret``, the data of the Secret of that name (None when there is none)."""
    if secret is None:
        return SecretProblem(f'Secret "{name}" not found in namespace "{namespace}": create it with key {key}')
    if key not in secret:
        return SecretProblem(f'key "{key}" not found in secret "{name}"')
    value = secret[key].strip()  # a file made with an editor ends with a newline
    return value or SecretProblem(f'key "{key}" in secret "{name}" is empty')
