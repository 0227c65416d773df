"""Links that take one answer without signing in. What they allow is in their token, and nothing is kept.

A token names the call by its uid, the kind of answer and the person it was sent to, and it expires. It needs no list
of used ones: the call takes one answer. The payload of a token that is not ours is told apart and never acted upon.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from itsdangerous import BadData, Serializer, URLSafeSerializer, base64_encode
from pydantic import ValidationError

from kubechain_common.messages import ObjectRef
from kubechain_common.runtime.clock import now
from kubechain_human_bridge.addresses import ANSWER_PATH, build_page_link
from kubechain_human_bridge.channels.base import Kind
from kubechain_human_bridge.channels.errors import ChannelUnavailableError
from kubechain_human_bridge.links.link_key import SECRET_NAME, KeyUnknownError, LinkKey

LIFETIME = timedelta(days=7)

_MAX = 4000
_COMPRESSED = "."
"""How itsdangerous begins what it compresses; ours is not: what a stranger compressed could unfold to megabytes."""


@dataclass(frozen=True)
class Grant:
    """What a link allows: one answer of this kind to this call, by this person, until ``expires_at``."""

    call: ObjectRef
    kind: Kind
    by: str
    expires_at: datetime


class LinkError(Exception):
    """A link that is no good; the text is for the person who opened it.

    ``claimed`` is what a token that is not ours says it is about: true or not, somebody wrote it.
    """

    reason = "malformed"

    def __init__(self, claimed: ObjectRef | None = None) -> None:
        super().__init__("This link is not complete. Open it from the message again, or copy all of it.")
        self.claimed = claimed


class ForgedLinkError(LinkError):
    reason = "forged"

    def __init__(self, claimed: ObjectRef | None) -> None:
        super().__init__(claimed)
        self.args = ("This link is not valid: it was changed, or all links were revoked.",)


class ExpiredLinkError(LinkError):
    """The link has expired. Its token was ours, so its grant is what we wrote."""

    reason = "expired"

    def __init__(self, grant: Grant) -> None:
        super().__init__(grant.call)
        self.grant = grant
        self.args = (f"This link expired at {grant.expires_at:%Y-%m-%d %H:%M:%S} UTC.",)


class SignedLinks:
    """Makes and reads the links. ``base_url`` is how people reach us."""

    def __init__(self, key: LinkKey, base_url: str) -> None:
        self._key = key
        self._base_url = base_url.rstrip("/")

    def answer_link(self, call: ObjectRef, kind: Kind, by: str, expires_at: datetime | None = None) -> str:
        """The link that takes one answer from ``by``, for a week or until ``expires_at``. Raises
        ChannelUnavailableError.
        """
        try:
            key = self._key.current
        except KeyUnknownError as error:
            raise ChannelUnavailableError(str(error)) from None
        if not key:
            raise ChannelUnavailableError(
                f'the key of the links, in Secret "{SECRET_NAME}" of human-bridge, is missing'
            )
        token = write_grant(key, Grant(call, kind, by, expires_at or now() + LIFETIME))
        return f"{self._base_url}{ANSWER_PATH}?{urlencode({'token': token})}"

    def page_link(self, call: ObjectRef) -> str:
        """The link to the request, which is shown to whoever signs in."""
        return build_page_link(self._base_url, call)

    def read(self, token: str) -> Grant:
        """What the token allows now. Raises LinkError, KeyUnknownError."""
        return read_grant(self._key.current, token, now())


def write_grant(key: str, grant: Grant) -> str:
    """The token. Pure."""
    call = grant.call
    expires = int(grant.expires_at.timestamp())
    return _serializer(key).dumps([call.namespace, call.name, call.uid, grant.kind, grant.by[:253], expires])


def read_grant(key: str, token: str, moment: datetime) -> Grant:
    """What ``write_grant`` was given. Pure. Raises LinkError for anything else, and after the end."""
    if not token or len(token) > _MAX or token.startswith(_COMPRESSED):
        raise LinkError
    try:
        genuine, payload = _serializer(key).loads_unsafe(token)
    except (BadData, ValueError):
        raise LinkError from None
    grant = _parse(payload)
    if not key or not genuine:
        raise ForgedLinkError(grant.call if grant else None)
    if grant is None:
        raise LinkError
    if moment >= grant.expires_at:
        raise ExpiredLinkError(grant)
    return grant


def _parse(payload: Any) -> Grant | None:
    try:
        namespace, name, uid, kind, by, expires = payload
        if kind not in ("Approval", "Contact") or not isinstance(by, str):
            return None
        call = ObjectRef(namespace=namespace, name=name, uid=uid)
        return Grant(call, kind, by, datetime.fromtimestamp(expires, UTC))
    except (ValidationError, TypeError, ValueError, OverflowError, OSError):
        return None


class _Serializer(URLSafeSerializer):
    """Never compresses."""

    def dump_payload(self, obj: Any) -> bytes:
        return base64_encode(Serializer.dump_payload(self, obj))


def _serializer(key: str) -> _Serializer:
    return _Serializer(
        key,
        salt="kubechain.link.v1",
        signer_kwargs={"digest_method": hashlib.sha256, "key_derivation": "hmac"},
    )
