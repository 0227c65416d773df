"""No API key is in anything that the product writes, whatever a provider says about it; Secrets themselves excepted."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from aiohttp import web
from tests.e2e.support import manifests
from tests.e2e.support.background import BackgroundLoop
from tests.e2e.support.cluster import SERVICES
from tests.e2e.support.otlp import SpanStore
from tests.e2e.support.workspace import Workspace

from kubechain_cli.localcluster.layout import Layout
from kubechain_cli.scripted_llm.server import read_key
from kubechain_common.messaging import Listener
from kubechain_common.testing.eventually import eventually

pytestmark = pytest.mark.e2e

KINDS = "llms,agents,tasks,taskruntoolcalls,mcpservers,contactchannels,events,configmaps,leases"
EXPORT_SECONDS = 10.0


class EchoingProvider:
    """Both protocols; tells a caller whose key it does not like which key that was, wherever there is room for it."""

    def __init__(self) -> None:
        self.valid: set[str] = set()
        self.asked: list[str] = []

    def build_app(self) -> web.Application:
        app = web.Application()
        app.router.add_route("*", "/v1/{path:.*}", self._handle)
        return app

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        key = read_key(request.headers)
        if key not in self.valid:
            return self._refuse(key)
        if request.method == "GET":
            return web.json_response({"data": []})
        self.asked.append(key)
        body = await request.json()
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "X-Key": key})
        await response.prepare(request)
        for event in _events("messages" in request.path, "break" in str(body["messages"][-1]), key):
            await response.write(b"data: " + json.dumps(event).encode() + b"\n\n")
        return response

    def _refuse(self, key: str) -> web.Response:
        error = {
            "message": f"Incorrect API key provided: {key}. Bearer {key}",
            "type": "authentication_error",
            "param": key,
        }
        return web.json_response({"error": error, "key": key}, status=401, headers={"X-Key": key})


def _events(anthropic: bool, broken: bool, key: str) -> Iterator[dict[str, Any]]:
    failure = {"type": "error", "error": {"type": "invalid_request_error", "message": f"{key} may not do this"}}
    if anthropic:
        yield {"type": "message_start", "message": {"content": []}}
        yield {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": "fine"}}
    else:
        yield {"choices": [{"index": 0, "delta": {"content": "fine"}}]}
    if broken:
        yield failure
    elif anthropic:
        yield {"type": "message_delta", "delta": {"stop_reason": "end_turn"}}
        yield {"type": "message_stop"}
    else:
        yield {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}


class Overheard:
    """Every message on NATS while the context is entered in a background loop."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._lock = threading.Lock()
        self._stopping = asyncio.Event()
        self.messages: list[bytes] = []

    async def __aenter__(self) -> Overheard:
        self._group = asyncio.TaskGroup()
        await self._group.__aenter__()
        listening = asyncio.Event()
        self._task = self._group.create_task(self._listen(listening))
        await listening.wait()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await self._group.__aexit__(None, None, None)

    async def _listen(self, listening: asyncio.Event) -> None:
        async with Listener.open(self._url, "test", "kubechain.>") as listener:
            listening.set()
            async for data in listener:
                with self._lock:
                    self.messages.append(data)


@pytest.fixture
def provider(servers: BackgroundLoop) -> tuple[EchoingProvider, str]:
    provider = EchoingProvider()
    return provider, servers.serve(provider.build_app())


@pytest.mark.parametrize("protocol", ["openai", "anthropic"])
def test_a_key_is_nowhere_but_in_its_secret(
    workspace: Workspace,
    servers: BackgroundLoop,
    spans: SpanStore,
    provider: tuple[EchoingProvider, str],
    protocol: str,
) -> None:
    echoing, url = provider
    overheard = servers.enter(Overheard(workspace.cluster.status()["natsUrl"]))
    first, second = workspace.new_secret("sk-first"), workspace.new_secret("key-second")
    gateway = workspace.cluster.process("llm-gateway")["pid"]
    llm = manifests.llm(f"{url}/v1" if protocol == "openai" else url)
    llm["spec"]["provider"] = protocol
    # Refused at first, so that validation has something to echo; then everything that may befall a call.
    workspace.kubectl.apply(manifests.secret("openai", OPENAI_API_KEY=first), llm, manifests.agent())
    workspace.kubectl.wait("llm/gpt-4o", "jsonpath={.status.status}=Error")
    echoing.valid = {first}
    workspace.kubectl("patch", "llm", "gpt-4o", "--type=merge", "-p", '{"spec": {"requestTimeoutSeconds": 30}}')
    workspace.kubectl.wait("agent/my-assistant")
    tasks = [workspace.run_task("succeeds", "hello")]
    tasks.append(fail_task(workspace, "breaks", "break"))
    echoing.valid = {second}
    tasks.append(fail_task(workspace, "refused", "hello"))
    workspace.kubectl.apply(manifests.secret("openai", OPENAI_API_KEY=second))
    workspace.kubectl.wait("llm/gpt-4o")
    followed = workspace.cluster.run_cli("run", "my-assistant", "hello", "--follow", "-n", workspace.namespace)
    assert (followed.returncode, followed.stdout) == (0, "fine\n"), followed.stderr
    assert set(echoing.asked) == {first, second}, "the new key counts from the next call on"
    assert workspace.cluster.process("llm-gateway")["pid"] == gateway, "without a restart"
    assert "***" in tasks[1]["status"]["error"]
    assert "***" in tasks[2]["status"]["error"]

    eventually(
        lambda: "provided: ***" in workspace.kubectl("get", "events", "-o", "yaml"),
        EXPORT_SECONDS,
        what="the Event of the refusal",
    )
    if workspace.cluster.traces:
        wait_for_spans(spans, tasks)
    written = collect(workspace, spans)
    written["NATS messages"] = b"\n".join(overheard.messages)
    written["kubechain run"] = followed.stderr.encode()
    # The refusal went through all of these, so that is where a key would be.
    for place in ("objects", "NATS messages", str(workspace.cluster.logs / "llm-gateway.log")):
        assert b"provided: ***" in written[place], place
    assert not workspace.cluster.traces or b"provided: ***" in written["spans"]
    for secret in (first, second):
        for form in (secret.encode(), base64.b64encode(secret.encode()).rstrip(b"=")[:-1], secret[-24:].encode()):
            assert [place for place, text in written.items() if form in text] == []


def fail_task(workspace: Workspace, name: str, message: str) -> dict[str, Any]:
    workspace.kubectl.apply(manifests.task(name, message))
    return workspace.kubectl.finish(name, "Failed")


def wait_for_spans(spans: SpanStore, tasks: list[dict[str, Any]]) -> None:
    def exported() -> bool:
        for task in tasks:
            names = {span.name for span in spans.of_trace(task["status"]["spanContext"]["traceID"])}
            assert {"invoke_agent my-assistant", "chat gpt-4o"} <= names
        return True

    eventually(exported, EXPORT_SECONDS, what="the spans of the Tasks")


def collect(workspace: Workspace, spans: SpanStore) -> dict[str, bytes]:
    """What the product has written, by the place of it."""
    layout = Layout.at(workspace.cluster.state_dir)
    written = {"objects": workspace.kubectl("get", KINDS, "--all-namespaces", "-o", "yaml").encode()}
    written["spans"] = "\n".join(span.text for span in list(spans.spans)).encode()
    for process in workspace.cluster.status()["processes"]:
        if process["name"] in SERVICES:
            with urlopen(f"http://127.0.0.1:{process['port']}/metrics", timeout=10) as answer:
                written[f"metrics of {process['name']}"] = answer.read()
    for folder in (workspace.cluster.logs, layout.data / "nats"):
        written |= read_files(folder)
    return written


def read_files(folder: Path) -> dict[str, bytes]:
    """What is in the files of a folder, from which NATS takes some away at any time."""
    contents = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                contents[f"{parent}/{name}"] = Path(parent, name).read_bytes()
    assert contents, f"nothing in {folder}"
    return contents
