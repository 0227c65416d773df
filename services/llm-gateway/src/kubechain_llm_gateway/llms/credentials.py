"""From an LLM and its Secret to the API key, or to the sentence that says what is missing. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from kubechain_common.api.secret_values import SecretProblem, find_value
from kubechain_common.api.v1alpha1 import LLM
from kubechain_llm_gateway.providers.service_account import parse_service_account

SecretName = tuple[str, str]
"""(namespace, name) of a Secret."""


@dataclass(frozen=True)
class Credentials:
    """The key, if the LLM has one; ``digest`` tells two keys apart without telling them."""

    api_key: str | None = field(repr=False)
    digest: str = ""


def secret_of(llm: LLM) -> SecretName | None:
    """The Secret that the LLM names."""
    source = llm.spec.api_key_from
    return (llm.namespace, source.secret_key_ref.name) if source else None


def resolve_credentials(llm: LLM, secret: Mapping[str, str] | None) -> Credentials | SecretProblem:
    """The LLM's key in ``secret``, the data of the Secret it names (None when there is no such Secret)."""
    source = llm.spec.api_key_from
    if source is None:
        return Credentials(None)
    name, key = source.secret_key_ref.name, source.secret_key_ref.key
    value = find_value(llm.namespace, name, key, secret)
    if isinstance(value, SecretProblem):
        return value
    if llm.spec.provider == "vertex":
        problem = parse_service_account(value)
        if isinstance(problem, str):
            return SecretProblem(f'key "{key}" in secret "{name}" {problem}')
    elif not (value.isascii() and value.isprintable()):
        return SecretProblem(
            f'key "{key}" in secret "{name}" is not an API key: it holds characters no HTTP header can carry'
        )
    return Credentials(value, hashlib.sha256(value.encode("utf-8", "replace")).hexdigest())
