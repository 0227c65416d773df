"""nats-server in containers: one, or a cluster of three."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from tests.containers.box import Box, await_that
from tests.containers.place import Place

MONITOR = 8222
CONFIG = "/etc/nats/nats.conf"
READY_SECONDS = 30.0


def build_config(name: str, peers: list[str]) -> str:
    lines = [
        f"server_name: {name}",
        "listen: 0.0.0.0:4222",
        f"http: 0.0.0.0:{MONITOR}",
        "max_payload: 8MB",
        'jetstream { store_dir: "/data" }',
    ]
    if peers:
        routes = ", ".join(f"nats://{peer}:6222" for peer in peers)
        lines.append(f"cluster {{ name: kubechain, listen: 0.0.0.0:6222, routes: [{routes}] }}")
    return "\n".join(lines) + "\n"


def build_node(place: Place, image: str, directory: Path, name: str, peers: list[str]) -> Box:
    file = directory / f"{name}.conf"
    file.write_text(build_config(name, peers))
    file.chmod(0o644)
    return Box(
        place,
        name,
        image,
        command=["--config", CONFIG],
        files={str(file): CONFIG},
        volumes=("/data",),
        aliases=("nats",),
    )


def is_ready(node: Box) -> bool:
    """Its JetStream takes requests: in a cluster there is a leader, and this node has caught up with it."""
    return node.get("/healthz", MONITOR) == 200


@contextmanager
def running_nats(place: Place, image: str, directory: Path, nodes: int = 1) -> Iterator[list[Box]]:
    """Ready; all of them answer to the name ``nats``."""
    names = [f"{directory.name}-{number}" for number in range(nodes)]
    with ExitStack() as stack:
        boxes = [
            stack.enter_context(build_node(place, image, directory, name, names if nodes > 1 else [])) for name in names
        ]
        for box in boxes:
            await_that(f"{box.name} is ready", partial(is_ready, box), READY_SECONDS, box)
        yield boxes


def read_streams(nodes: list[Box]) -> dict[str, dict[str, Any]]:
    """By name, as the first node tells that answers and keeps any; empty when none does."""
    for node in nodes:
        try:
            accounts = node.read("/jsz?streams=true&accounts=true&config=true", MONITOR)["account_details"]
        except (OSError, KeyError):
            continue
        if found := {stream["name"]: stream for account in accounts for stream in account.get("stream_detail", [])}:
            return found
    return {}


def read_replicas(nodes: list[Box]) -> dict[str, int]:
    """On how many nodes each stream is kept."""
    return {name: int(stream["config"]["num_replicas"]) for name, stream in read_streams(nodes).items()}


def find_leader(nodes: list[Box], stream: str) -> Box | None:
    """The node that leads the stream; None while nobody does."""
    name = read_streams(nodes).get(stream, {}).get("cluster", {}).get("leader")
    return next((node for node in nodes if node.name == name), None)
