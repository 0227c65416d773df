"""The health endpoint."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest

from kubechain_common.runtime import Health


@pytest.fixture
async def health() -> AsyncIterator[Health]:
    health = Health()
    async with health.serve("127.0.0.1", 0):
        yield health


async def get(health: Health, path: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{health.port}{path}") as answer:
        return answer.status, await answer.text()


async def test_a_free_port_is_taken_and_told(health: Health) -> None:
    assert health.port > 0
    assert await get(health, "/livez") == (200, "ok\n")


async def test_ready_means_every_check_says_so(health: Health) -> None:
    ready = {"kube": True, "bus": False}
    health.add_check("kube", lambda: ready["kube"])
    health.add_check("bus", lambda: ready["bus"])
    assert await get(health, "/readyz") == (503, "[+] kube\n[-] bus\nnot ready\n")
    ready["bus"] = True
    assert await get(health, "/readyz") == (200, "[+] kube\n[+] bus\nready\n")


async def test_a_check_may_take_its_time(health: Health) -> None:
    async def check() -> bool:
        return False

    health.add_check("slow", check)
    assert await health.failing() == ["slow"]


async def test_a_check_that_raises_fails(health: Health) -> None:
    def check() -> bool:
        raise RuntimeError("boom")

    health.add_check("broken", check)
    status, text = await get(health, "/readyz")
    assert status == 503
    assert "[-] broken" in text


async def test_not_ready_is_still_alive(health: Health) -> None:
    health.add_check("never", lambda: False)
    assert (await get(health, "/livez"))[0] == 200


async def test_metrics_are_in_prometheus_format(health: Health) -> None:
    status, text = await get(health, "/metrics")
    assert status == 200
    assert "# TYPE kubechain_messages_published_total counter" in text
    assert "process_resident_memory_bytes" in text
