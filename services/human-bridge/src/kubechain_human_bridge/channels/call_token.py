"""The token in a channel's own message that says which call an answer is for. Pure.

It is signed with our own key, that of the links, so that every replica can check it without keeping anything, and
whoever is behind a channel, who knows the channel's secret, can not write one for a call that others were asked about.
It names the channel by its uid, so that neither a namesake nor a later channel can answer for it. It proves where a
request went; who answers is for the channel's own signature to prove.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from itsdangerous import BadData, URLSafeSerializer
from pydantic import ValidationError

from kubechain_common.messages import ObjectRef
from kubechain_human_bridge.channels.base import Kind
from kubechain_human_bridge.channels.errors import ChannelUnavailableError

_MAX = 2000


class CallTokenError(Exception):
    """Not a token of ours; the text says no more than that."""


@dataclass(frozen=True)
class CallToken:
    """The call that was asked about, and the uid of the channel that it was asked through."""

    call: ObjectRef
    channel_uid: str
    kind: Kind


class CallTokens:
    """Writes and reads the tokens. ``key`` is asked each time: it gives an empty text while there is no key, and what
    it raises goes through.
    """

    def __init__(self, key: Callable[[], str]) -> None:
        self._key = key

    def write(self, token: CallToken) -> str:
        """A text fit for a URL or a button. Raises ChannelUnavailableError."""
        key = self._key()
        if not key:
            raise ChannelUnavailableError("the key that signs what comes back with an answer is missing")
        return write_call_token(key, token)

    def read(self, text: str) -> CallToken:
        """What ``write`` was given. Raises CallTokenError for anything else."""
        return read_call_token(self._key(), text)


def write_call_token(key: str, token: CallToken) -> str:
    """A text fit for a URL or a button."""
    call = token.call
    return _serializer(key).dumps([call.namespace, call.name, call.uid, token.channel_uid, token.kind])


def read_call_token(key: str, text: str) -> CallToken:
    """What ``write_call_token`` was given. Raises CallTokenError for anything else."""
    if not key or len(text) > _MAX:  # anybody could sign with an empty key
        raise CallTokenError("the token is malformed")
    try:
        namespace, name, uid, channel_uid, kind = _serializer(key).loads(text)
        return CallToken(ObjectRef(namespace=namespace, name=name, uid=uid), channel_uid, kind)
    except (BadData, ValidationError, TypeError, ValueError):
        raise CallTokenError("the token is not one of ours") from None


def _serializer(key: str) -> URLSafeSerializer:
    return URLSafeSerializer(
        key,
        salt="kubechain.call.v1",
        signer_kwargs={"digest_method": hashlib.sha256, "key_derivation": "hmac"},
    )
