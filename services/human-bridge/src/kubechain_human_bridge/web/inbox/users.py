"""Who is there: a bearer token, checked by the API server's TokenReview.

https://kubernetes.io/docs/reference/kubernetes-api/authentication-resources/token-review-v1/
A token is kept nowhere, not even here: the cache of the last few seconds knows it by its digest.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

import orjson

from kubechain_human_bridge.web.inbox.fresh_cache import FreshCache

_PATH = "/apis/authentication.k8s.io/v1/tokenreviews"
_MAX_TOKEN = 16_384
_FRESH_SECONDS = 5.0
_MAX_KNOWN = 1024
_REVIEWS_AT_ONCE = 8
"""Token reviews at a time: strangers may try tokens, and the API server has other work to do."""

Extra = tuple[tuple[str, tuple[str, ...]], ...]


class Requests(Protocol):
    """The part of the client that reviews need."""

    async def request(
        self, method: str, path: str, *, params: Mapping[str, str] | None = None, body: Mapping[str, Any] | None = None
    ) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True)
class User:
    """Somebody, as the API server knows them."""

    name: str
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: Extra = ()


class TokenReviews:
    """Asks the API server whose token this is."""

    def __init__(self, kube: Requests) -> None:
        self._kube = kube
        self._at_once = asyncio.Semaphore(_REVIEWS_AT_ONCE)
        self._known: FreshCache[bytes, User | None] = FreshCache(_FRESH_SECONDS, _MAX_KNOWN)

    async def identify(self, token: str) -> User | None:
        """The user, or None when the API server does not take the token. Raises KubeError."""
        if not token or len(token) > _MAX_TOKEN or not token.isascii() or not token.isprintable():
            return None
        return await self._known.look_up(hashlib.sha256(token.encode()).digest(), lambda: self._review(token))

    async def _review(self, token: str) -> User | None:
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}}
        async with self._at_once:
            status = (await self._kube.request("POST", _PATH, body=body)).get("status") or {}
        return read_user(status.get("user") or {}) if status.get("authenticated") is True else None


def read_user(raw: Mapping[str, Any]) -> User | None:
    """The user of a TokenReview; nobody without a name."""
    name = raw.get("username")
    if not isinstance(name, str) or not name:
        return None
    extra = tuple((key, tuple(values)) for key, values in sorted((raw.get("extra") or {}).items()))
    return User(name, raw.get("uid") or "", tuple(raw.get("groups") or ()), extra)


def read_expiry(token: str) -> datetime | None:
    """When a JWT ends by its own word. Worth something only once the API server has vouched for the token."""
    try:
        payload = token.split(".")[1]
        claims = orjson.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return datetime.fromtimestamp(claims["exp"], UTC)
    except (IndexError, KeyError, TypeError, ValueError, OverflowError, OSError, binascii.Error):
        return None
