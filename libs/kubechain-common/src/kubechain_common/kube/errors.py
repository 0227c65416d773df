"""What can go wrong with a request to the API server.

KubeError
 +-- ConfigurationError     no usable kubeconfig and not inside a cluster
 +-- NotFoundError          404 of an object
 +-- AlreadyExistsError     409 of a create
 +-- ConflictError          409 of a guarded write: read again, decide again
 +-- GoneError              410: the resourceVersion is too old, list again
 +-- InvalidError           400, 422: the object breaks the schema or a rule
 |    +-- TooLargeError     the object is over what the API server or etcd stores
 +-- UnauthorizedError      401: the credentials are not (or no longer) good
 +-- ForbiddenError         403: RBAC
 +-- UnavailableError       network, 429, 5xx, or a kind that is not served (yet)
 +-- ContentLostError       a text that a conversation points at is gone (window_reader)

``retryable`` tells whether the same request may succeed later without anybody changing anything; ``retry_after`` is
in seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import orjson


class KubeError(Exception):
    """Base of all errors of this package."""

    default_retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, retryable: bool | None = None, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retryable = self.default_retryable if retryable is None else retryable
        self.retry_after = retry_after


class ConfigurationError(KubeError):
    """Nothing says where the API server is, or what says so cannot be used."""


class NotFoundError(KubeError):
    """The object (or its namespace) does not exist."""


class AlreadyExistsError(KubeError):
    """An object of this name exists. After a create with a deterministic name this means: done."""


class ConflictError(KubeError):
    """The object changed since it was read."""

    default_retryable = True


class GoneError(KubeError):
    """The history asked for was compacted away."""

    default_retryable = True


class InvalidError(KubeError):
    """The API server refuses the content."""


class TooLargeError(InvalidError):
    """The object is too large to be stored."""


class UnauthorizedError(KubeError):
    """The API server does not know us; tokens are refreshed, so it may know us later."""

    default_retryable = True


class ForbiddenError(KubeError):
    """The service account may not do this."""


class UnavailableError(KubeError):
    """The API server cannot be reached, is overloaded or is not ready."""

    default_retryable = True


_BY_CODE: Mapping[int, type[KubeError]] = {
    400: InvalidError,
    401: UnauthorizedError,
    403: ForbiddenError,
    409: ConflictError,
    410: GoneError,
    413: TooLargeError,
    422: InvalidError,
    429: UnavailableError,
}

# etcd and gRPC limits surface as a plain 500; repeating the request would fail for ever.
_TOO_LARGE_HINTS = ("request is too large", "larger than max", "ResourceExhausted")


def build_error(request: str, code: int, body: bytes, headers: Mapping[str, str] | None = None) -> KubeError:
    """The error that an answer stands for; ``request`` is its method and path.

    Not every answer is the API server's: a proxy before it has errors of its own, in JSON of its own.
    """
    status = _parse_status(body)
    if status.get("kind") == "Status":
        code = _code_of(status, code)
    # A starting API server answers 503 with a Retry-After of many times what it needs; our own back-off serves better.
    retry_after = _retry_after(headers) if code == 429 else None
    return build_status_error(request, {**status, "code": code}, retry_after)


def build_status_error(request: str, status: Mapping[str, Any], retry_after: float | None = None) -> KubeError:
    """The error of a metav1.Status, which may also arrive as an ERROR event of a watch."""
    code = _code_of(status, 500)
    message = str(status.get("message") or "no message")
    error = _classify(code, status, message)
    return error(f"{request}: {code} {message}", retry_after=retry_after)


def _code_of(status: Mapping[str, Any], otherwise: int) -> int:
    code = status.get("code")
    return code if type(code) is int and code > 0 else otherwise


def _classify(code: int, status: Mapping[str, Any], message: str) -> type[KubeError]:
    if code == 404:
        details = status.get("details")
        # Without a name it is the kind that is unknown: no CRD, or not yet served just after a start of the API server.
        return NotFoundError if isinstance(details, dict) and details.get("name") else UnavailableError
    if code == 409 and status.get("reason") == "AlreadyExists":
        return AlreadyExistsError
    if code >= 500:
        return TooLargeError if any(hint in message for hint in _TOO_LARGE_HINTS) else UnavailableError
    return _BY_CODE.get(code, KubeError)


def _parse_status(body: bytes) -> dict[str, Any]:
    try:
        status = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {"message": body[:200].decode(errors="replace").strip()}
    return status if isinstance(status, dict) else {}


def _retry_after(headers: Mapping[str, str] | None) -> float | None:
    value = (headers or {}).get("Retry-After", "")
    return float(value) if value.isdecimal() else None
