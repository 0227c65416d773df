"""Where the bridge is served."""

from __future__ import annotations

import aiohttp
import pytest

from kubechain_common.testing.loopback import has_ipv6_loopback
from kubechain_human_bridge.settings import BridgeSettings
from kubechain_human_bridge.web.app import build_app, serve


@pytest.mark.parametrize("address", ["127.0.0.1", "[::1]"])
async def test_without_an_address_of_its_own_it_is_on_every_one(address: str) -> None:
    if address == "[::1]" and not has_ipv6_loopback():
        pytest.skip("this machine has no IPv6 loopback")
    async with (
        serve(build_app(), BridgeSettings().host, 0) as port,
        aiohttp.ClientSession() as session,
        session.get(f"http://{address}:{port}/nothing") as answer,
    ):
        assert answer.status == 404
