"""How the inbox is read from a cluster in which very much waits."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from kubechain_cli.answering.finding import Finder
from kubechain_common.kube.client import KubeClient, ListPage
from kubechain_common.testing.builders import build_call, build_contact_channel, build_mcp_server, build_task

WAITING = {"phase": "Pending", "status": "AwaitingHumanApproval"}
CALLS, TASKS = 400, 200


class CountingClient(KubeClient):
    """Counts what it is asked for; has two calls of each Task, all to one server with a channel."""

    def __init__(self) -> None:
        super().__init__("test")
        self.asked: Counter[str] = Counter()
        self.most = self._now = 0

    async def list_page(self, path: str, **_: Any) -> ListPage:
        calls = (
            build_call(f"c{n}", status=WAITING, target={"name": "fetch"}, taskRunRef={"name": f"t{n % TASKS}"})
            for n in range(CALLS)
        )
        return ListPage([call.to_wire() for call in calls], "1", "")

    async def get(self, kind: Any, namespace: str, name: str) -> Any:
        self.asked[f"{kind.__name__}/{name}"] += 1
        self._now += 1
        self.most = max(self.most, self._now)
        await asyncio.sleep(0)  # whoever else wants to ask asks now
        self._now -= 1
        server = build_mcp_server(approvalContactChannel={"name": "boss"})
        return {"Task": build_task(name), "MCPServer": server}.get(kind.__name__, build_contact_channel(name))


async def test_each_object_is_asked_for_once_and_only_so_many_at_a_time() -> None:
    kube = CountingClient()
    found = await Finder(kube, "default").find()
    assert {(item.agent, item.channel) for item in found} == {("my-assistant", "boss")}
    assert (len(found), len(kube.asked), kube.most) == (CALLS, TASKS + 2, 16)
    assert set(kube.asked.values()) == {1}
