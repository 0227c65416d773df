"""The token in a channel's own message that says which call an answer is for. Pure.

It is signed with a secret of the channel, so that every replica can check it without keeping anything, and it names
the channel by its uid, so that neither a namesake nor a later channel can answer for it. It proves where a request
went; who answers is for the channel's own signature to prove.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from itsdangerous import BadData, URLSafeSerializer
from pydantic import ValidationError

from kubechain_common.messages import ObjectRef
from kubechain_human_bridge.channels.base import Kind

_MAX = 2000


class CallTokenError(Exception):
    """Not a token of this channel; the text says no more than that."""


@dataclass(frozen=True)
class CallToken:
    """The call that was asked about, and the uid of the channel that it was asked through."""

    call: ObjectRef
    channel_uid: str
    kind: Kind


def write_call_token(secret: str, token: CallToken) -> str:
    """A text fit for a URL or a button."""
    call = token.call
    return _serializer(secret).dumps([call.namespace, call.name, call.uid, token.channel_uid, token.kind])


def read_call_token(secret: str, text: str) -> CallToken:
    """What ``write_call_token`` was given. Raises CallTokenError for anything else."""
    if len(text) > _MAX:
        raise CallTokenError("the token is malformed")
    try:
        namespace, name, uid, channel_uid, kind = _serializer(secret).loads(text)
        return CallToken(ObjectRef(namespace=namespace, name=name, uid=uid), channel_uid, kind)
    except (BadData, ValidationError, TypeError, ValueError):
        raise CallTokenError("the token was not made for this channel") from None


def _serializer(secret: str) -> URLSafeSerializer:
    return URLSafeSerializer(
        secret,
        salt="kubechain.call.v1",
        signer_kwargs={"digest_method": hashlib.sha256, "key_derivation": "hmac"},
    )
