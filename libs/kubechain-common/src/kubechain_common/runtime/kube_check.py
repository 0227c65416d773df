"""The part of /readyz that says whether the API server can be reached."""

from __future__ import annotations

import asyncio
import math

from kubechain_common.kube.client import KubeClient
from kubechain_common.kube.errors import KubeError

EVERY = 5.0
"""Seconds that an answer counts for; so a leader's probe is no request, as each renewal of its Lease is answered."""

_TIMEOUT = 2.0


class KubeCheck:
    """True when the API server answered anything just now. If it did not, it is asked, and not more often than that."""

    def __init__(self, kube: KubeClient) -> None:
        self._kube = kube
        self._asked_at = -math.inf
        self._reachable = True

    async def __call__(self) -> bool:
        if self._kube.seconds_since_answer() < EVERY:
            self._reachable = True
        elif asyncio.get_running_loop().time() - self._asked_at >= EVERY:
            self._asked_at = asyncio.get_running_loop().time()
            self._reachable = await self._ask()
        return self._reachable  # of the last time, for a second probe while the first one asks

    async def _ask(self) -> bool:
        try:
            async with asyncio.timeout(_TIMEOUT):
                await self._kube.request("GET", "/version")
        except (KubeError, TimeoutError):
            return False
        return True
