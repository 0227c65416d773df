"""The local nats-server: JetStream on, 127.0.0.1 only, messages up to 8 MB."""

from __future__ import annotations

import json
from pathlib import Path

from kubechain_cli.localcluster.files import write_atomic

MAX_PAYLOAD = 8 * 1024 * 1024


def build_nats_config(monitor_port: int, users: str = "") -> str:
    """What the command line cannot say: the payload limit, a monitoring endpoint for the readiness probe, the users."""
    return "\n".join(
        (
            f"max_payload: {MAX_PAYLOAD}",
            f"http: {json.dumps(f'127.0.0.1:{monitor_port}')}",
            users,
        )
    )


def write_nats_config(path: Path, monitor_port: int, users: str) -> None:
    """Write the configuration file that ``build_nats_command`` names."""
    write_atomic(path, build_nats_config(monitor_port, users))


def build_nats_command(binary: Path, *, config: Path, store_dir: Path, port: int) -> tuple[str, ...]:
    """nats-server with JetStream in ``store_dir``."""
    return (
        str(binary),
        f"--config={config}",
        "-js",
        "-sd",
        str(store_dir),
        "-a",
        "127.0.0.1",
        "-p",
        str(port),
    )
