"""The health endpoint."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator

import aiohttp
import pytest

from kubechain_common.runtime import Health, ServiceSettings
from kubechain_common.testing.loopback import has_ipv6_loopback


@pytest.fixture
async def health() -> AsyncIterator[Health]:
    health = Health()
    async with health.serve("127.0.0.1", 0):
        yield health


async def get(health: Health, path: str, address: str = "127.0.0.1") -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(f"http://{address}:{health.port}{path}") as answer:
        return answer.status, await answer.text()


async def test_a_free_port_is_taken_and_told(health: Health) -> None:
    assert health.port > 0
    assert await get(health, "/livez") == (200, "ok\n")


@pytest.mark.parametrize("address", ["127.0.0.1", "[::1]"])
async def test_without_an_address_of_its_own_it_is_on_every_one(address: str) -> None:
    if address == "[::1]" and not has_ipv6_loopback():
        pytest.skip("this machine has no IPv6 loopback")
    health = Health()
    async with health.serve(ServiceSettings().http_host, 0):
        assert await get(health, "/livez", address) == (200, "ok\n")


async def test_a_machine_without_ipv6_is_served_over_ipv4(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: False)
    health = Health()
    async with health.serve("", 0):
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
