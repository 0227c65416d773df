"""A browser's session: a signed cookie that says who signed in and until when, and nothing that could be spent.

The token itself is not in it. So nothing has to be encrypted, a stolen cookie is no access to the cluster, and what
has a signature over it (itsdangerous, which our links use too) needs no store: every replica that has the key reads
it, also after a restart. The price: who the user is, and in which groups, is as of the sign-in. Hence the hour at
most, and never longer than the token is good for. What the user may do is asked anew for each answer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from itsdangerous import BadData, URLSafeSerializer

from kubechain_human_bridge.web.inbox.users import User

LIFETIME = timedelta(hours=1)
MAX_COOKIE = 3800
"""Browsers drop cookies over 4096 bytes, name and attributes included."""

_SALT = "kubechain.humanlayer.dev/page-session"


class SessionTooLargeError(Exception):
    """The user is in more groups than a cookie can name."""


@dataclass(frozen=True, slots=True)
class Session:
    """Somebody who signed in; ``bearer`` says that this very request carries the token."""

    user: User
    expires_at: datetime
    bearer: bool = False


class NoKeyError(Exception):
    """There is no signing key."""


class Sessions:
    """Writes and reads the cookie's value. ``key`` is asked each time: it gives an empty text while there is no key.

    ``key`` raises KubeError while nobody knows whether there is one. A session is not over then, and goes on later.
    """

    def __init__(self, key: Callable[[], bytes]) -> None:
        self._key = key

    def seal(self, session: Session) -> str:
        """The cookie's value. Raises SessionTooLargeError, NoKeyError."""
        user = session.user
        sealed = self._serializer().dumps(
            [int(session.expires_at.timestamp()), user.name, user.uid, user.groups, user.extra]
        )
        text = sealed.decode() if isinstance(sealed, bytes) else sealed
        if len(text) > MAX_COOKIE:
            raise SessionTooLargeError
        return text

    def open(self, cookie: str, now: datetime) -> Session | None:
        """The session, unless it was not written by us, or is over."""
        try:
            expires, name, uid, groups, extra = self._serializer().loads(cookie)
        except (BadData, NoKeyError, ValueError, TypeError):
            return None
        session = Session(User(name, uid, tuple(groups), _read_extra(extra)), datetime.fromtimestamp(expires, UTC))
        return session if now < session.expires_at else None

    def _serializer(self) -> URLSafeSerializer:
        key = self._key()
        if not key:  # anybody could sign with an empty one
            raise NoKeyError
        signer = {"key_derivation": "hmac", "digest_method": hashlib.sha256}
        return URLSafeSerializer(key, salt=_SALT, signer_kwargs=signer)


def build_session(user: User, token_ends: datetime | None, now: datetime) -> Session:
    """A session from now on."""
    ends = now + LIFETIME
    return Session(user, min(ends, token_ends) if token_ends is not None else ends)


def _read_extra(raw: Any) -> tuple[tuple[str, tuple[str, ...]], ...]:
    return tuple((key, tuple(values)) for key, values in raw)
