from __future__ import annotations

import orjson
import pytest

from kubechain_common.kube.errors import (
    AlreadyExistsError,
    ConflictError,
    ForbiddenError,
    GoneError,
    InvalidError,
    KubeError,
    NotFoundError,
    TooLargeError,
    UnauthorizedError,
    UnavailableError,
    build_error,
)


def _body(code: int, reason: str = "", message: str = "m", **details: str) -> bytes:
    return orjson.dumps({"kind": "Status", "code": code, "reason": reason, "message": message, "details": details})


@pytest.mark.parametrize(
    ("code", "body", "expected", "retryable"),
    [
        (404, _body(404, "NotFound", name="a"), NotFoundError, False),
        (404, _body(404, "NotFound", "the server could not find the requested resource"), UnavailableError, True),
        (404, b"404 page not found\n", UnavailableError, True),
        (409, _body(409, "AlreadyExists", name="a"), AlreadyExistsError, False),
        (409, _body(409, "Conflict", name="a"), ConflictError, True),
        (410, _body(410, "Expired"), GoneError, True),
        (400, _body(400, "BadRequest"), InvalidError, False),
        (422, _body(422, "Invalid"), InvalidError, False),
        (413, b"limit is 3145728", TooLargeError, False),
        (500, _body(500, "", "etcdserver: request is too large"), TooLargeError, False),
        (401, _body(401, "Unauthorized"), UnauthorizedError, True),
        (403, _body(403, "Forbidden"), ForbiddenError, False),
        (429, _body(429, "TooManyRequests"), UnavailableError, True),
        (500, _body(500, "InternalError"), UnavailableError, True),
        (503, b"apiserver not ready", UnavailableError, True),
        (405, _body(405, "MethodNotAllowed"), KubeError, False),
        (502, b"[1]", UnavailableError, True),
        (502, b'{"code": "bad_gateway", "message": "no backend"}', UnavailableError, True),
        (503, b'{"code": 14, "message": "no healthy upstream"}', UnavailableError, True),
        (503, b'{"kind": "Status", "code": null}', UnavailableError, True),
        (403, b'{"kind": "Status", "code": 0}', ForbiddenError, False),
        (404, b'{"code": 404, "details": "no such route"}', UnavailableError, True),
        (404, b'{"kind": "Status", "code": 404, "details": ["x"]}', UnavailableError, True),
    ],
)
def test_every_answer_becomes_the_error_that_tells_what_to_do(
    code: int, body: bytes, expected: type[KubeError], retryable: bool
) -> None:
    error = build_error("GET /x", code, body)
    assert type(error) is expected
    assert error.retryable is retryable
    assert str(error).startswith(f"GET /x: {code} ")


@pytest.mark.parametrize(
    ("header", "seconds"), [("7", 7.0), ("Fri, 31 Dec 1999 23:59:59 GMT", None), ("\u00b2", None), ("", None)]
)
def test_retry_after_is_taken_in_seconds(header: str, seconds: float | None) -> None:
    assert build_error("GET /x", 429, b"", {"Retry-After": header}).retry_after == seconds


def test_a_starting_api_server_is_not_waited_for_longer_than_it_takes() -> None:
    assert build_error("GET /x", 503, b"", {"Retry-After": "5"}).retry_after is None
