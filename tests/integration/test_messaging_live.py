"""Words for those who listen now, against a real nats-server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from kubechain_common.messages import LLMDelta, LLMListening
from kubechain_common.messages.topology import ANY, llm_delta_subject, llm_listening_subject
from kubechain_common.messaging import Bus, BusUnavailableError, Listener, codec
from kubechain_common.testing.nats_server import NatsServer, run_nats_server

pytestmark = pytest.mark.integration

Eventually = Callable[..., Awaitable[None]]

SUBJECT = llm_delta_subject("default", "uid")


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    async with run_nats_server(tmp_path) as server:
        yield server


def delta(text: str) -> LLMDelta:
    return LLMDelta(turn=1, attempt=1, call=1, offset=0, text=text)


async def test_a_listener_says_that_it_listens_and_hears(server: NatsServer) -> None:
    heard: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()
    async with Bus.connect(server.url, "gateway") as bus:
        await bus.live.tell(SUBJECT, delta("nobody hears this"))
        async with (
            bus.live.hear(llm_listening_subject(ANY, ANY), lambda *word: heard.put_nowait(word)),
            Listener.open(server.url, "cli", SUBJECT) as listener,
            asyncio.timeout(10),
        ):
            while heard.empty():  # a subscription is not confirmed
                await listener.tell(llm_listening_subject("default", "uid"), LLMListening(fresh=True))
                await asyncio.sleep(0.01)
            subject, data = await heard.get()
            assert subject == llm_listening_subject("default", "uid")
            assert codec.decode(LLMListening, data).fresh
            await bus.live.tell(SUBJECT, delta("hello"))
            async for payload in listener:
                assert codec.decode(LLMDelta, payload).text == "hello"
                break


async def test_a_listener_says_soon_that_there_is_no_nats() -> None:
    with pytest.raises(BusUnavailableError, match="NATS cannot be reached"):
        async with asyncio.timeout(10), Listener.open("nats://127.0.0.1:1", "cli", SUBJECT, patience=0.5):
            pytest.fail("there is nothing to listen to")


async def test_nobody_waits_for_a_nats_that_is_away(server: NatsServer, eventually: Eventually) -> None:
    async with Bus.connect(server.url, "gateway") as bus:
        await server.kill()
        await eventually(lambda: not bus.connected)
        async with asyncio.timeout(1):
            await bus.live.tell(SUBJECT, delta("hello"))
        await server.start()
