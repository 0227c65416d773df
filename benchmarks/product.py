"""The running product that is measured: a local control plane, the services, a scripted model and an echo tool.

Everything runs as processes of its own; the measuring process only creates Tasks and watches them.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from kubechain_common.api.v1alpha1 import LLM, Agent, MCPServer, Resource, Task
from kubechain_common.kube.client import KubeClient
from kubechain_common.kube.informer import Change, Informer

R = TypeVar("R", bound=Resource)

HERE = Path(__file__).parent
READY_WITHIN = 60.0


@dataclass(frozen=True)
class Product:
    """What a measurement needs to know of the running product."""

    kube: KubeClient
    tasks: TaskWatcher
    status: dict[str, Any]
    llm_log: Path
    llm_pid: int

    def pids(self) -> dict[str, int]:
        """Our services, by name."""
        return {name: pid for name, pid in self._processes().items() if (HERE.parent / "services" / name).is_dir()}

    def all_pids(self) -> dict[str, int]:
        """Every process that a Task takes the time of, by name."""
        return {**self._processes(), "scripted LLM": self.llm_pid, "benchmark": os.getpid()}

    def port(self, name: str) -> int:
        """Where a service answers /readyz."""
        return next(int(p["port"]) for p in self.status["processes"] if p["name"] == name)

    async def refresh(self) -> None:
        """Reads the process ids again after a restart, which the supervisor notices a moment after the service."""
        state = Path(self.status["stateDir"])
        async with asyncio.timeout(READY_WITHIN):
            while True:
                try:
                    status = await asyncio.to_thread(_kubechain, "status", "-o", "json", state=state)
                except subprocess.CalledProcessError:  # not everything is ready
                    await asyncio.sleep(0.2)
                else:
                    break
        self.status.update(json.loads(status))

    def _processes(self) -> dict[str, int]:
        return {p["name"]: p["pid"] for p in self.status["processes"]}


class TaskWatcher:
    """Sees every Task through a watch of its own, as any client would, and knows when each one ended."""

    def __init__(self, kube: KubeClient) -> None:
        self._informer: Informer[Task] = Informer(kube, Task)
        self._ended: dict[str, asyncio.Future[tuple[float, Task]]] = {}
        self._informer.add_handler(self._handle)

    async def run(self) -> None:
        await self._informer.run()

    async def wait_synced(self) -> None:
        await self._informer.wait_synced()

    def expect(self, name: str) -> asyncio.Future[tuple[float, Task]]:
        """Done with the loop time and the Task when the Task of this name has ended."""
        return self._ended.setdefault(name, asyncio.get_running_loop().create_future())

    def _handle(self, change: Change[Task]) -> None:
        task = change.new
        future = self._ended.get(task.name) if task else None
        if task is not None and future is not None and task.finished and not future.done():
            future.set_result((asyncio.get_running_loop().time(), task))


def _kubechain(*arguments: str, state: Path) -> str:
    command = [sys.executable, "-m", "kubechain_cli", *arguments, "--state-dir", str(state)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


@contextmanager
def _running_cluster(state: Path) -> Iterator[dict[str, Any]]:
    try:
        _kubechain("up", "--detach", state=state)  # what came up too late is there nevertheless
        status: dict[str, Any] = json.loads(_kubechain("status", "-o", "json", state=state))
        yield status
    finally:
        _kubechain("down", state=state)


@contextmanager
def _scripted_model(log: Path) -> Iterator[tuple[str, int]]:
    """Its base URL and its process id."""
    command = [
        sys.executable,
        "-m",
        "kubechain_cli.scripted_llm",
        "--script",
        "tools",
        "--log",
        str(log),
        "--no-log-bodies",
        "--model",
        "scripted",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())["url"], process.pid
        finally:
            process.terminate()


@asynccontextmanager
async def running_product() -> AsyncIterator[Product]:
    """The whole product, ready, with agent ``bench``; gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="kubechain-bench-") as folder:
        state, log = Path(folder) / "state", Path(folder) / "llm.jsonl"
        with _scripted_model(log) as (url, llm_pid), _running_cluster(state) as status:
            os.environ["KUBECONFIG"] = status["kubeconfig"]
            async with KubeClient.connect("kubechain-bench") as kube, asyncio.TaskGroup() as group:
                watcher = TaskWatcher(kube)
                following = group.create_task(watcher.run())
                await watcher.wait_synced()
                await _create_agent(kube, url)
                yield Product(kube, watcher, status, log, llm_pid)
                following.cancel()


async def _create_agent(kube: KubeClient, url: str) -> None:
    echo = {
        "transport": "stdio",
        "command": sys.executable,
        "args": [str(HERE / "echo_server.py")],
        "maxConcurrency": 64,
    }
    model = {"provider": "openai", "parameters": {"model": "scripted", "baseUrl": url}}
    bench = {"llmRef": {"name": "scripted"}, "system": "You are measured.", "mcpServers": [{"name": "echo"}]}
    await kube.create(build(MCPServer, "echo", echo))
    await kube.create(build(LLM, "scripted", model))
    await kube.create(build(Agent, "bench", bench))
    async with asyncio.timeout(READY_WITHIN):
        while not (await kube.get(Agent, "default", "bench")).status.ready:  # noqa: ASYNC110 - a bounded wait of the bench
            await asyncio.sleep(0.05)


def build(kind: type[R], name: str, spec: dict[str, Any]) -> R:
    return kind.model_validate({"metadata": {"name": name, "namespace": "default"}, "spec": spec})
