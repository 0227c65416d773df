"""Signatures by the Standard Webhooks specification, in both directions. Pure.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping

HEADER_ID = "webhook-id"
HEADER_TIMESTAMP = "webhook-timestamp"
HEADER_SIGNATURE = "webhook-signature"

TOLERANCE_SECONDS = 300

_PREFIX = "whsec_"


class SignatureError(Exception):
    """Why a message is not taken; the text holds neither secret nor signature."""


class SigningKeyError(ValueError):
    """The secret can not be a key."""


def read_key(secret: str) -> bytes:
    """The key of ``whsec_<base64>``, or the bytes of any other text. Raises SigningKeyError."""
    if not secret.startswith(_PREFIX):
        key = secret.encode()
    else:
        try:
            key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
        except (binascii.Error, ValueError):
            raise SigningKeyError("after whsec_ has to follow base64") from None
    if not key:
        raise SigningKeyError("it is empty")
    return key


def sign(key: bytes, message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The three headers of the message."""
    return {
        HEADER_ID: message_id,
        HEADER_TIMESTAMP: str(timestamp),
        HEADER_SIGNATURE: f"v1,{_digest(key, message_id, str(timestamp), body)}",
    }


def verify(key: bytes, headers: Mapping[str, str], body: bytes, now: float) -> None:
    """Raises SignatureError unless the message was signed with this key within the last minutes."""
    message_id, stamp = headers.get(HEADER_ID, ""), headers.get(HEADER_TIMESTAMP, "")
    signatures = headers.get(HEADER_SIGNATURE, "")
    if not (message_id and stamp and signatures):
        raise SignatureError(f"the headers {HEADER_ID}, {HEADER_TIMESTAMP} and {HEADER_SIGNATURE} are required")
    check_age(stamp, now)
    expected = f"v1,{_digest(key, message_id, stamp, body)}".encode()
    given = (signature.encode(errors="backslashreplace") for signature in signatures.split())
    if not any(hmac.compare_digest(expected, signature) for signature in given):
        raise SignatureError("the signature does not match")


def check_age(stamp: str, now: float) -> None:
    """Raises SignatureError unless ``stamp``, in Unix seconds, is about now."""
    if not (stamp.isascii() and stamp.isdigit() and len(stamp) < 16):
        raise SignatureError("the timestamp is not a number of seconds")
    if abs(now - int(stamp)) > TOLERANCE_SECONDS:
        raise SignatureError("the timestamp is more than five minutes away from now")


def _digest(key: bytes, message_id: str, stamp: str, body: bytes) -> str:
    signed = f"{message_id}.{stamp}.".encode(errors="backslashreplace") + body
    return base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
