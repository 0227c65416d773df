"""What was asked of the server, for tests and benchmarks to count: in memory, and as JSON lines in a file if wanted.

Keys never get in: a request carries only a fingerprint of its key.
"""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

import orjson


def fingerprint(key: str) -> str:
    """Eight hex digits that tell two keys apart and give neither away; empty for no key."""
    return hashlib.sha256(key.encode()).hexdigest()[:8] if key else ""


@dataclass(frozen=True)
class LoggedRequest:
    """One request. ``time`` is in seconds since the epoch; equal bodies have equal digests."""

    time: float
    path: str
    raw: bytes
    digest: str
    key_fingerprint: str

    @property
    def body(self) -> Any:
        """The parsed body, or None when it is no JSON."""
        try:
            return orjson.loads(self.raw)
        except orjson.JSONDecodeError:
            return None

    def to_line(self, *, with_body: bool = True) -> bytes:
        """The request as one line of JSON."""
        fields = {"time": self.time, "path": self.path, "digest": self.digest, "key_fingerprint": self.key_fingerprint}
        return orjson.dumps({**fields, "body": self.body} if with_body else fields) + b"\n"


class RequestLog:
    """The latest ``keep`` requests, oldest first, and all of them in ``file``, with their bodies or without."""

    def __init__(self, file: Path | None = None, *, bodies: bool = True, keep: int = 100_000) -> None:
        self._bodies = bodies
        self._requests: deque[LoggedRequest] = deque(maxlen=keep)
        self._path = file
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Self:
        if self._path is not None:
            self._file = self._path.open("ab", buffering=0)
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def __iter__(self) -> Iterator[LoggedRequest]:
        return iter(tuple(self._requests))

    def __len__(self) -> int:
        return len(self._requests)

    def record(self, path: str, raw: bytes, key: str) -> LoggedRequest:
        """Note a request as it comes in, before it is answered."""
        digest = hashlib.sha256(raw).hexdigest()
        request = LoggedRequest(time.time(), path, raw, digest, fingerprint(key))
        self._requests.append(request)
        if self._file is not None:
            self._file.write(request.to_line(with_body=self._bodies))
        return request
