"""The five services as containers, and what they need: kubeconfigs that lead to the gateway, and NATS."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.chaos.cluster import Cluster
from tests.containers.box import Box, await_that
from tests.containers.place import Gate, Place

from kubechain_cli.localcluster.plan import service_kubeconfig
from kubechain_cli.localcluster.services import NAMESPACE, SERVICES

TESTS = Path(__file__).resolve().parents[1]
PAGE_PORT = 8090
READY_SECONDS = 60.0
KUBECONFIG = "/var/run/kubechain/kubeconfig"
SERVERS_HOME = "/var/lib/kubechain/mcp"
LOGS = "/logs"
SOURCES = "/src/tests"
PYTHON = "/app/.venv/bin/python"


@dataclass(frozen=True)
class Stand:
    """What services stand on. ``images`` are tags by name; ``logs`` is a folder that tools may write into."""

    cluster: Cluster
    place: Place
    images: Mapping[str, str]
    logs: Path


@dataclass(frozen=True)
class Product:
    """Everything that runs in containers."""

    place: Place
    services: dict[str, Box]
    nats: list[Box]
    logs: Path

    def boxes(self) -> list[Box]:
        return [*self.services.values(), *self.nats]

    def tail_logs(self, lines: int = 15) -> str:
        return "\n".join(f"--- {box.name}\n" + "\n".join(box.logs().splitlines()[-lines:]) for box in self.boxes())


def build_service(stand: Stand, name: str, gate: Gate, *, nats_url: str, env: Mapping[str, str] | None = None) -> Box:
    """Not started yet. It signs in to the API server, behind ``gate``, with the rights of its own ServiceAccount."""
    mcp_host = name == "mcp-host"
    box = Box(
        stand.place,
        name,
        stand.images[name],
        env={
            "KUBECONFIG": KUBECONFIG,
            "KUBECHAIN_NATS_URL": nats_url,
            "KUBECHAIN_POD_NAME": f"{name}-0",
            "KUBECHAIN_NAMESPACE": NAMESPACE,
            # Isolated servers could not write down what they do where the tests can read it.
            **({"KUBECHAIN_MCP_ISOLATION": "none"} if mcp_host else {}),
            **(env or {}),
        },
        files={
            str(write_kubeconfig(stand, name, gate)): KUBECONFIG,
            **({str(TESTS): SOURCES} if mcp_host else {}),
        },
        writable={str(stand.logs): LOGS} if mcp_host else {},
        volumes=(SERVERS_HOME,) if mcp_host else (),
    )
    if name == "human-bridge":
        box.set_env("KUBECHAIN_BRIDGE_PUBLIC_URL", f"http://{box.address}:{PAGE_PORT}")
    return box


def write_kubeconfig(stand: Stand, name: str, gate: Gate) -> Path:
    """The service's own, but for the address; what the server's certificate is for stays as it is."""
    config = json.loads(service_kubeconfig(stand.cluster.layout, name).read_text())
    cluster = config["clusters"][0]["cluster"]
    cluster |= {"server": f"https://{gate.address}", "tls-server-name": "127.0.0.1"}
    file = stand.logs.parent / f"{name}-{gate.port}.kubeconfig"
    file.write_text(json.dumps(config))
    file.chmod(0o644)  # in the container it belongs to somebody else
    return file


def is_ready(service: Box) -> bool:
    return service.get("/readyz") == 200


@contextmanager
def running_product(stand: Stand, nats: list[Box], env: Mapping[str, str] | None = None) -> Iterator[Product]:
    """All five, ready; ``nats`` runs already."""
    gate = stand.place.make_gate(stand.cluster.port("kube-apiserver"))
    with ExitStack() as stack:
        services = {
            name: stack.enter_context(build_service(stand, name, gate, nats_url="nats://nats:4222", env=env))
            for name in SERVICES
        }
        product = Product(stand.place, services, nats, stand.logs)
        for name, box in services.items():
            await_that(f"{name} is ready", partial(is_ready, box), READY_SECONDS, box)
        yield product
