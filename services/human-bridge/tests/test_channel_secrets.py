from __future__ import annotations

from typing import Any

import pytest

from kubechain_common.api.secret_values import SecretProblem
from kubechain_common.api.v1alpha1 import ContactChannel
from kubechain_human_bridge.contactchannels.secrets import ChannelSecrets, find_sources, resolve_secrets, secrets_of


def source(name: str, key: str) -> dict[str, Any]:
    return {"secretKeyRef": {"name": name, "key": key}}


HUMANLAYER = {
    "type": "email",
    "apiKeyFrom": source("humanlayer", "KEY"),
    "email": {"address": "a@example.com"},
    "humanLayer": {"webhookSecretFrom": source("hooks", "SECRET")},
}
SMTP = {
    "type": "email",
    "email": {
        "address": "a@example.com",
        "smtp": {"host": "h", "from": "k@example.com", "username": "u", "passwordFrom": source("smtp", "PASSWORD")},
    },
}
SLACK = {
    "type": "slack",
    "slack": {
        "channelOrUserID": "C1",
        "botTokenFrom": source("slack", "TOKEN"),
        "signingSecretFrom": source("slack", "SIGNING"),
    },
}
WEBHOOK = {"type": "webhook", "webhook": {"url": "http://h", "signingSecretFrom": source("hook", "KEY")}}
INBOX = {"type": "inbox"}


def build(spec: dict[str, Any]) -> ContactChannel:
    return ContactChannel.model_validate(
        {"metadata": {"name": "c", "namespace": "default", "uid": "u", "generation": 1}, "spec": spec}
    )


@pytest.mark.parametrize(
    ("spec", "fields"),
    [
        (HUMANLAYER, {"apiKeyFrom", "webhookSecretFrom"}),
        (SMTP, {"passwordFrom"}),
        (SLACK, {"botTokenFrom", "signingSecretFrom"}),
        (WEBHOOK, {"signingSecretFrom"}),
        (INBOX, set()),
    ],
)
def test_every_road_names_its_secrets(spec: dict[str, Any], fields: set[str]) -> None:
    assert find_sources(build(spec).spec).keys() == fields


def test_secrets_are_found_in_the_namespace_of_the_channel_alone() -> None:
    channel = build(HUMANLAYER)
    assert secrets_of(channel) == {("default", "humanlayer"), ("default", "hooks")}
    elsewhere = {("other", "humanlayer"): {"KEY": "k"}, ("other", "hooks"): {"SECRET": "s"}}
    problem = resolve_secrets(channel, elsewhere)
    assert isinstance(problem, SecretProblem)
    assert problem.detail == 'Secret "humanlayer" not found in namespace "default": create it with key KEY'


def test_values_are_keyed_by_their_field_and_stay_out_of_sight() -> None:
    read = {("default", "slack"): {"TOKEN": "xoxb-1\n", "SIGNING": "shh", "OTHER": "x"}}
    secrets = resolve_secrets(build(SLACK), read)
    assert isinstance(secrets, ChannelSecrets)
    assert secrets.values == {"botTokenFrom": "xoxb-1", "signingSecretFrom": "shh"}
    assert "xoxb" not in repr(secrets)
    assert "shh" not in repr(secrets)


def test_the_digest_changes_with_any_value_and_with_nothing_else() -> None:
    def digest(**values: str) -> str:
        secrets = resolve_secrets(build(SLACK), {("default", "slack"): values})
        assert isinstance(secrets, ChannelSecrets)
        return secrets.digest

    first = digest(TOKEN="a", SIGNING="b")
    assert first == digest(TOKEN="a", SIGNING="b", OTHER="c")
    assert len({first, digest(TOKEN="b", SIGNING="a"), digest(TOKEN="ab", SIGNING="b")}) == 3


@pytest.mark.parametrize(
    ("data", "detail"),
    [
        ({}, 'key "KEY" not found in secret "hook"'),
        ({"KEY": " \n"}, 'key "KEY" in secret "hook" is empty'),
        ({"KEY": "a\x00b"}, 'key "KEY" in secret "hook" holds control characters: it is no key and no password'),
    ],
)
def test_what_is_wrong_with_a_secret_is_said(data: dict[str, str], detail: str) -> None:
    assert resolve_secrets(build(WEBHOOK), {("default", "hook"): data}) == SecretProblem(detail)


def test_an_inbox_needs_no_secret() -> None:
    assert resolve_secrets(build(INBOX), {}) == ChannelSecrets({}, "")
