"""What is kept of a round in which something did not end: the objects, and what the broker says of its messages."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from tests.chaos.cluster import Cluster

from kubechain_cli.localcluster.plan import read_plan

FILE = "left_over.json"
_BROKER = "http://127.0.0.1:{port}/jsz?streams=true&consumers=true&config=true"
"""Per stream its messages, per consumer what is pending: https://docs.nats.io/running-a-nats-service/nats_admin/monitoring"""


async def keep_evidence(
    cluster: Cluster, directory: Path, tasks: dict[str, dict[str, Any]], calls: list[dict[str, Any]], names: set[str]
) -> None:
    """Writes down the Tasks of these names and their calls, while broker and services still run."""
    evidence = {
        "tasks": [task for name, task in tasks.items() if name in names],
        "calls": [call for call in calls if call["spec"]["taskRunRef"]["name"] in names],
        "broker": await asyncio.to_thread(_ask_broker, read_plan(cluster.layout).ports["nats-monitor"]),
    }
    await asyncio.to_thread((directory / FILE).write_text, json.dumps(evidence, indent=1))


def _ask_broker(port: int) -> dict[str, Any]:
    """What it says; that it says nothing is evidence as well, and no reason to end the sweep."""
    try:
        with urlopen(_BROKER.format(port=port), timeout=5) as response:
            answer: dict[str, Any] = json.load(response)
    except OSError as error:
        return {"silent": str(error)}
    return answer
