"""Requests to the API server: aiohttp for the wire, orjson for the body, pydantic for our own kinds.

A few requests are under way at a time; watches do not count, so that a hundred of them never keep a write waiting. More
requests wait in the order they came: aiohttp's own pool gives a free connection to who asks next, and lets who has
waited longest wait on while others ask without a pause.
Nothing is retried here: a caller knows best what a failed write means. A create that timed out and is repeated raises
AlreadyExistsError, a guarded update or patch ConflictError; both mean "look again".
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import math
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self, TypeVar
from urllib.parse import urlencode

import aiohttp
import orjson
from pydantic import ValidationError
from yarl import URL

from kubechain_common.api.v1alpha1.meta import API_VERSION, Resource
from kubechain_common.kube.access import ClusterAccess
from kubechain_common.kube.backoff import Backoff
from kubechain_common.kube.deep_json import load
from kubechain_common.kube.errors import (
    ConflictError,
    InvalidError,
    KubeError,
    NotFoundError,
    UnauthorizedError,
    UnavailableError,
    build_error,
)
from kubechain_common.kube.paths import core_path, resource_path
from kubechain_common.kube.watch import WatchStream
from kubechain_common.kube.write_activity import WriteActivity

R = TypeVar("R", bound=Resource)

JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"

_REQUEST_TIMEOUT = aiohttp.ClientTimeout(total=30, sock_connect=5)
# With bookmarks a healthy watch says something every minute.
_WATCH_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=75)
_CONNECTIONS = 16
"""Requests under way at a time. Each connection costs 100 KB for its TLS. At 5 ms a write even fewer keep the API
server busy."""
_READ_BUFFER = 1 << 18
# aiohttp writes a stream piece by piece, and anything else in one go that may hold up the loop.
_CHUNKED_OVER = 1 << 18


@dataclass(frozen=True, slots=True)
class ListPage:
    """One page of a list, objects as they came; ``continue_token`` is empty on the last one."""

    items: list[dict[str, Any]]
    resource_version: str
    continue_token: str


class KubeClient:
    """``async with KubeClient.connect("kubechain-x/0.1") as kube:``"""

    def __init__(self, user_agent: str) -> None:
        self._user_agent = user_agent
        self._resources = AsyncExitStack()
        self._access: ClusterAccess
        self._session: aiohttp.ClientSession
        self._watch_session: aiohttp.ClientSession
        self._turns = asyncio.Semaphore(_CONNECTIONS)
        self._answered_at = -math.inf
        self.activity = WriteActivity()

    @classmethod
    def connect(cls, user_agent: str) -> Self:
        """A client to be entered with ``async with``, which reads the configuration and raises ConfigurationError."""
        return cls(user_agent)

    async def __aenter__(self) -> Self:
        self._access = await ClusterAccess.load()
        self._session = await self._resources.enter_async_context(self._open_session(_REQUEST_TIMEOUT))
        self._watch_session = await self._resources.enter_async_context(self._open_session(_WATCH_TIMEOUT))
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._resources.aclose()

    @property
    def host(self) -> str:
        """Base URL of the API server."""
        return self._access.host

    async def wait_until_ready(self) -> None:
        """Returns once the API server answers; network errors and 5xx are waited out, without an end."""
        backoff = Backoff(0.05, 0.5)
        while True:
            try:
                await self.request("GET", "/version")
            except (UnavailableError, UnauthorizedError):
                await asyncio.sleep(backoff.next())
            else:
                return

    async def renew_credentials(self) -> bool:
        """Whether, after an UnauthorizedError, there are other credentials now, or none that this cluster would take.

        Raises ConfigurationError.
        """
        return await self._access.renew()

    # --- our own kinds ---

    async def get(self, kind: type[R], namespace: str, name: str) -> R:
        """The object as etcd has it. Raises NotFoundError."""
        return _parse(kind, await self.request("GET", resource_path(kind, namespace, _required(name))))

    async def create(self, obj: R) -> R:
        """Creates the object, without its status.

        Raises AlreadyExistsError, InvalidError, NotFoundError (of the namespace).
        """
        kind = type(obj)
        body = {k: v for k, v in obj.to_wire().items() if k != "status"}
        body |= {"apiVersion": API_VERSION, "kind": kind.crd.kind}
        body["metadata"] = {k: v for k, v in body["metadata"].items() if v}
        with self.activity.writing():
            return _parse(kind, await self.request("POST", resource_path(kind, obj.namespace), body=body))

    async def delete(
        self, kind: type[Resource], namespace: str, name: str, *, uid: str | None = None, version: str | None = None
    ) -> None:
        """Deletes the object; that it is gone already, or is another one than ``uid``, is fine.

        With a ``version`` (its resourceVersion) raises ConflictError when it has changed since, or is another one.
        """
        options: dict[str, Any] = {"propagationPolicy": "Background"}
        guards = {"uid": uid, "resourceVersion": version}
        if preconditions := {key: value for key, value in guards.items() if value is not None}:
            options["preconditions"] = preconditions
        try:
            await self.request("DELETE", resource_path(kind, namespace, _required(name)), body=options)
        except NotFoundError:
            return
        except ConflictError:
            if uid is None or version is not None:
                raise

    async def update_status(self, obj: R, status: Mapping[str, Any]) -> R:
        """Replaces ``.status``, and nothing else; raises ConflictError when the object changed since ``obj`` was read.

        An update takes a quarter less of the API server's CPU than a patch, which it applies to JSON that it first
        makes of the object, and then reads back. The rest of the object need not be sent:
        https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#status-subresource
        """
        kind, meta = type(obj), obj.metadata
        path = resource_path(kind, obj.namespace, _required(obj.name), "status")
        metadata = {"namespace": obj.namespace, "name": obj.name, "resourceVersion": meta.resource_version}
        body = {"apiVersion": API_VERSION, "kind": kind.crd.kind, "metadata": metadata, "status": status}
        with self.activity.writing():
            return _parse(kind, await self.request("PUT", path, body=body))

    async def patch(self, kind: type[R], namespace: str, name: str, body: Mapping[str, Any]) -> R:
        """JSON merge patch of the object itself; put ``metadata.resourceVersion`` in the body to guard it."""
        path = resource_path(kind, namespace, _required(name))
        with self.activity.writing():
            return _parse(kind, await self.request("PATCH", path, body=body, content_type=MERGE_PATCH))

    async def get_secret(self, namespace: str, name: str) -> dict[str, str]:
        """The decoded data of a Secret. Raises NotFoundError, ForbiddenError."""
        return decode_secret(await self.request("GET", core_path("secrets", namespace, _required(name))))

    # --- what everything above is made of ---

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        content_type: str = JSON,
    ) -> dict[str, Any]:
        """One request, any kind; the answer is parsed JSON. Raises a KubeError."""
        async with self._turn(method, path):
            response = await self._send(self._session, method, path, params, body, content_type)
            async with response:
                try:
                    answer = load(await response.read())
                except (aiohttp.ClientError, TimeoutError, OSError, orjson.JSONDecodeError) as error:
                    raise _unavailable(method, path, error) from error
        self._answered_at = asyncio.get_running_loop().time()
        return answer if isinstance(answer, dict) else {}

    def seconds_since_answer(self) -> float:
        """Since the last request that went well; infinite before the first one."""
        return asyncio.get_running_loop().time() - self._answered_at

    async def list_page(
        self,
        path: str,
        *,
        limit: int = 500,
        continue_token: str = "",
        label_selector: str = "",
        field_selector: str = "",
    ) -> ListPage:
        """A page of a consistent list. Raises GoneError when the token of a slow list has expired."""
        params = {"limit": str(limit)}
        if label_selector:
            params["labelSelector"] = label_selector
        if field_selector:
            params["fieldSelector"] = field_selector
        if continue_token:
            params["continue"] = continue_token
        answer = await self.request("GET", path, params=params)
        meta = answer.get("metadata") or {}
        return ListPage(answer.get("items") or [], meta.get("resourceVersion", ""), meta.get("continue") or "")

    @asynccontextmanager
    async def watch(self, path: str, params: Mapping[str, str]) -> AsyncIterator[WatchStream]:
        """An open watch with bookmarks; the server has answered 200 when the body runs."""
        params = {"watch": "1", "allowWatchBookmarks": "true", **params}
        response = await self._send(self._watch_session, "GET", path, params, None, JSON)
        try:
            yield WatchStream(f"WATCH {path}", response)
        finally:
            _hang_up(response)

    @asynccontextmanager
    async def _turn(self, method: str, path: str) -> AsyncIterator[None]:
        """One of the connections; they are given in the order they were asked for."""
        try:
            async with asyncio.timeout(_REQUEST_TIMEOUT.total):
                await self._turns.acquire()
        except TimeoutError as error:
            raise _unavailable(method, path, error) from error
        try:
            yield
        finally:
            self._turns.release()

    async def _send(
        self,
        session: aiohttp.ClientSession,
        method: str,
        path: str,
        params: Mapping[str, str] | None,
        body: Mapping[str, Any] | None,
        content_type: str,
    ) -> aiohttp.ClientResponse:
        url = URL(f"{self._access.host}{path}{'?' + urlencode(params) if params else ''}", encoded=True)
        headers = await self._access.auth_headers()
        data: bytes | io.BytesIO | None = None
        if body is not None:
            headers["Content-Type"] = content_type
            data = encode_body(body)
            if len(data) > _CHUNKED_OVER:
                data = io.BytesIO(data)
        try:
            response = await session.request(
                method,
                url,
                data=data,
                headers=headers,
                proxy=self._access.proxy,
                server_hostname=self._access.server_hostname,
                allow_redirects=False,
            )
            if response.status < 300:
                return response
            async with response:
                error = build_error(f"{method} {path}", response.status, await response.read(), response.headers)
        except (aiohttp.ClientError, TimeoutError, OSError) as network_error:
            raise _unavailable(method, path, network_error) from network_error
        if isinstance(error, UnauthorizedError):
            self._access.expire(headers.get("Authorization", ""))
        raise error

    def _open_session(self, timeout: aiohttp.ClientTimeout) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=self._access.ssl_context),
            timeout=timeout,
            # Compression would cost both sides more CPU than the bytes are worth inside a cluster.
            headers={"User-Agent": self._user_agent, "Accept": JSON, "Accept-Encoding": "identity"},
            cookie_jar=aiohttp.DummyCookieJar(),
            read_bufsize=_READ_BUFFER,
        )


def encode_body(body: Mapping[str, Any]) -> bytes:
    """The body as JSON; integers beyond 64 bits, which a model may write and orjson refuses, included."""
    try:
        return orjson.dumps(body)
    except TypeError:
        return json.dumps(body).encode()


def decode_secret(secret: Mapping[str, Any]) -> dict[str, str]:
    """The data of a Secret object as text; what is not UTF-8 keeps its place with replacement characters."""
    data = secret.get("data") or {}
    return {key: base64.b64decode(value or "").decode(errors="replace") for key, value in data.items()}


def _required(name: str) -> str:
    if not name:
        raise InvalidError("the name of the object is empty")
    return name


def _parse(kind: type[R], raw: dict[str, Any]) -> R:
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        # The input is left out: it may be anything, and it ends in logs.
        where = ", ".join(".".join(str(part) for part in e["loc"]) for e in error.errors(include_input=False))
        raise InvalidError(f"{kind.crd.kind} does not match its schema at {where}") from None


def _unavailable(method: str, path: str, error: BaseException) -> KubeError:
    return UnavailableError(f"{method} {path}: cannot reach the API server: {str(error) or type(error).__name__}")


def _hang_up(response: aiohttp.ClientResponse) -> None:
    """End a stream in its middle, without the TLS farewell: it would outlive the session, and on exit the loop."""
    transport = response.connection.transport if response.connection is not None else None
    if transport is not None:
        transport.abort()
    response.close()
