"""The page on a server of its own, before an API server that knows a few tokens, rights and objects."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from aiohttp.test_utils import TestClient, TestServer

from kubechain_common.api.v1alpha1 import TaskRunToolCall
from kubechain_common.kube.client import JSON, KubeClient
from kubechain_common.kube.errors import ForbiddenError, NotFoundError, UnavailableError
from kubechain_common.kube.store import Change, Store
from kubechain_common.messages import ObjectRef
from kubechain_common.testing.builders import build_call
from kubechain_human_bridge.answers.answers import Answers
from kubechain_human_bridge.audit import Refusal
from kubechain_human_bridge.links.link_key import KeyUnknownError
from kubechain_human_bridge.web.app import build_app
from kubechain_human_bridge.web.inbox.page import InboxPage

PAGE = {"X-KubeChain-Page": "1"}
KEY = b"a key of thirty-two bytes or more"
Right = tuple[str, str, str]
"""(user, verb, namespace); an empty namespace is all of them."""


def waiting_call(name: str = "call", *, namespace: str = "default", version: int = 1, **spec: Any) -> TaskRunToolCall:
    """A call that waits for approval, or, with toolType HumanContact, for an answer."""
    question = spec.get("toolType") == "HumanContact"
    status = "AwaitingHumanInput" if question else "AwaitingHumanApproval"
    call = build_call(name, status={"phase": "Pending", "status": status, "startTime": "2026-11-23T12:00:00Z"}, **spec)
    metadata = call.metadata.model_copy(update={"namespace": namespace, "resource_version": str(version)})
    return call.model_copy(update={"metadata": metadata})


def answered_call(name: str = "call", *, version: int = 2, at: str = "2026-11-23T12:01:00Z", **decision: Any) -> Any:
    """The call after a decision."""
    full = {"approved": True, "by": "alice", "via": "page", "at": at, **decision}
    return waiting_call(name, version=version, decision=full)


class FakeCalls:
    """What an informer shows of its calls."""

    def __init__(self, *calls: TaskRunToolCall) -> None:
        self._store: Store[TaskRunToolCall] = Store(TaskRunToolCall)
        self._handlers: list[Callable[[Change[TaskRunToolCall]], None]] = []
        for call in calls:
            self.put(call)

    def get(self, namespace: str, name: str) -> TaskRunToolCall | None:
        return self._store.get((namespace, name))

    def add_handler(self, handler: Callable[[Change[TaskRunToolCall]], None]) -> None:
        self._handlers.append(handler)
        for call in self._store.list():
            handler(Change("added", None, call))

    def put(self, call: TaskRunToolCall) -> None:
        self._tell(self._store.upsert(call))

    def delete(self, call: TaskRunToolCall) -> None:
        self._tell(self._store.delete(call.key, 1000))

    def _tell(self, changes: list[Change[TaskRunToolCall]]) -> None:
        for change in changes:
            for handler in self._handlers:
                handler(change)


class FakeKube(KubeClient):
    """Reviews by tables, objects by path; ``asked`` is what was requested."""

    def __init__(self) -> None:
        super().__init__("test")
        self.tokens: dict[str, dict[str, Any]] = {}
        self.rights: set[Right] = set()
        self.hidden: set[tuple[str, str]] = set()
        """(user, resource) to which no right goes."""
        self.objects: dict[str, dict[str, Any]] = {}
        self.asked: list[tuple[str, str, Any]] = []
        self.away = False
        self.may_patch = True

    def add(self, call: TaskRunToolCall) -> TaskRunToolCall:
        self.objects[_path(call)] = call.to_wire()
        return call

    def bodies(self, path_end: str) -> list[dict[str, Any]]:
        return [body for _, path, body in self.asked if path.endswith(path_end)]

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        content_type: str = JSON,
    ) -> dict[str, Any]:
        self.asked.append((method, path, body))
        if self.away:
            raise UnavailableError("away")
        if path.endswith("/tokenreviews") and body is not None:
            user = self.tokens.get(body["spec"]["token"])
            return {"status": {"authenticated": True, "user": user} if user else {"error": "bad"}}
        if path.endswith("/subjectaccessreviews") and body is not None:
            spec, wanted = body["spec"], body["spec"]["resourceAttributes"]
            right = (spec["user"], wanted["verb"], wanted.get("namespace", ""))
            hidden = (spec["user"], wanted["resource"]) in self.hidden
            return {"status": {"allowed": right in self.rights and not hidden}}
        if path not in self.objects:
            raise NotFoundError(f"{method} {path}: 404")
        if method == "PATCH" and body is not None:
            if not self.may_patch:
                raise ForbiddenError("PATCH: 403")
            self.objects[path]["spec"].update(body["spec"])
        return self.objects[path]


class FakeAudit:
    """``told`` is (call, who, road) of each refusal."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, str]] = []

    def refused_call(self, call: ObjectRef, refusal: Refusal) -> None:
        self.told.append((call.name, refusal.who, refusal.road))

    def refused_unknown(self, refusal: Refusal) -> None:
        self.told.append(("", refusal.who, refusal.road))


class Testbed:
    """``alice`` may see and decide in ``default``, ``viewer`` may only see; their tokens are their names."""

    __test__ = False

    def __init__(self, *calls: TaskRunToolCall) -> None:
        self.kube = FakeKube()
        self.calls = FakeCalls(*calls)
        self.audit = FakeAudit()
        self.key_known = True
        for call in calls:
            self.kube.add(call)
        for name in ("alice", "viewer"):
            self.kube.tokens[name] = {"username": name, "groups": ["system:authenticated"]}
            self.kube.rights |= {(name, verb, "default") for verb in ("list", "get")}
        self.kube.rights.add(("alice", "decide", "default"))

    def _read_key(self) -> bytes:
        if not self.key_known:
            raise KeyUnknownError("not known yet")
        return KEY

    @asynccontextmanager
    async def serve(self, public_url: str = "http://127.0.0.1") -> AsyncIterator[TestClient[Any, Any]]:
        page = InboxPage(
            self.kube,
            calls=self.calls,
            answers=Answers(self.kube),
            audit=self.audit,
            signing_key=self._read_key,
            public_url=public_url,
        )
        async with TestClient(TestServer(build_app(page.routes()))) as client:
            yield client


def bearer(token: str = "alice") -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def _path(call: TaskRunToolCall) -> str:
    return f"/apis/kubechain.humanlayer.dev/v1alpha1/namespaces/{call.namespace}/taskruntoolcalls/{call.name}"
