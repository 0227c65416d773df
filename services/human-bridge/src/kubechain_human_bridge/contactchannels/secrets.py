"""From a ContactChannel and its Secrets to their values, or to the sentence that says what is missing. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from kubechain_common.api.secret_values import SecretProblem, find_value
from kubechain_common.api.v1alpha1 import ContactChannel
from kubechain_common.api.v1alpha1.contactchannel import ContactChannelSpec
from kubechain_common.api.v1alpha1.meta import SecretSource

SecretName = tuple[str, str]
"""(namespace, name) of a Secret."""


@dataclass(frozen=True)
class ChannelSecrets:
    """The values by the field that names them, like ``apiKeyFrom``.

    ``digest`` tells two sets of values apart without telling them.
    """

    values: Mapping[str, str] = field(repr=False)
    digest: str


def find_sources(spec: ContactChannelSpec) -> dict[str, SecretSource]:
    """Where the channel's secrets come from, by the field that says so."""
    found: dict[str, SecretSource | None] = {"apiKeyFrom": spec.api_key_from}
    if spec.human_layer is not None:
        found["webhookSecretFrom"] = spec.human_layer.webhook_secret_from
    if spec.email is not None and spec.email.smtp is not None:
        found["passwordFrom"] = spec.email.smtp.password_from
    if spec.slack is not None:
        found["botTokenFrom"] = spec.slack.bot_token_from
        found["signingSecretFrom"] = spec.slack.signing_secret_from
    if spec.webhook is not None:
        found["signingSecretFrom"] = spec.webhook.signing_secret_from
    return {name: source for name, source in found.items() if source is not None}


def secrets_of(channel: ContactChannel) -> set[SecretName]:
    """The Secrets that the channel names."""
    return {(channel.namespace, source.secret_key_ref.name) for source in find_sources(channel.spec).values()}


def resolve_secrets(
    channel: ContactChannel, read: Mapping[SecretName, Mapping[str, str] | None]
) -> ChannelSecrets | SecretProblem:
    """The channel's secrets; ``read`` holds the data of each Secret that it names, None for one that is missing."""
    values: dict[str, str] = {}
    for field_name, source in find_sources(channel.spec).items():
        name, key = source.secret_key_ref.name, source.secret_key_ref.key
        found = _find_printable(channel.namespace, name, key, read.get((channel.namespace, name)))
        if isinstance(found, SecretProblem):
            return found
        values[field_name] = found
    return ChannelSecrets(values, _digest(values))


def _find_printable(namespace: str, name: str, key: str, secret: Mapping[str, str] | None) -> str | SecretProblem:
    value = find_value(namespace, name, key, secret)
    if isinstance(value, str) and not value.isprintable():
        return SecretProblem(f'key "{key}" in secret "{name}" holds control characters: it is no key and no password')
    return value


def _digest(values: Mapping[str, str]) -> str:
    whole = "\x00".join(f"{name}\x00{value}" for name, value in sorted(values.items()))
    return hashlib.sha256(whole.encode()).hexdigest() if values else ""
