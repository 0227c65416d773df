"""What llm-gateway adds to a call, and what many calls at once cost it.

The measuring process is both neighbours of the gateway: it publishes the requests that task-controller would, is the
provider that streams, and hears the results. So each part of a call is timed by one clock. Overhead is from the
arrival of the request at the gateway to its call of the provider, plus from the last byte of the reply to the result on
the bus. When a request arrives there nobody outside sees: what a small one takes to a consumer of the measuring
process, by the same code, is subtracted from the time since it was published.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import orjson
import psutil
from aiohttp import web

from benchmarks.product import Product, build
from kubechain_common.api.v1alpha1 import LLM
from kubechain_common.api.v1alpha1.conversation import Message
from kubechain_common.messages import LLMListening, LLMRequest, ObjectRef
from kubechain_common.messages.llm import UNKNOWN_CONVERSATION
from kubechain_common.messages.topology import (
    LLM_MAX_IN_FLIGHT,
    llm_consumer,
    llm_listening_subject,
    llm_request_subject,
    llm_result_subject,
    parse_llm_result_subject,
)
from kubechain_common.messaging import Bus, Consumer, Delivery

CALLS = 300
IN_FLIGHT = 500
EVENTS = 100
PAUSE = 0.1
"""Seconds between two events of a call: ten tokens a second and call, five thousand in all."""

BUDGET_MS = 6.0
BUDGET_MB = 250.0
_LLMS = ("gateway-a", "gateway-b")
"""Two, because one LLM has 256 calls in flight at most."""
_READY_WITHIN = 60.0
_AFTERWARDS = 5.0
_CONVERSATION = [Message(role="system", content="Be brief."), Message(role="user", content="x" * 20_000)]


@dataclass
class Call:
    """When what happened to one call, in seconds."""

    published: float
    arrived: float = 0.0
    answered: float = 0.0
    result: asyncio.Future[float] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    @property
    def overhead_ms(self) -> float:
        return self.request_ms + self.result_ms

    @property
    def request_ms(self) -> float:
        return (self.arrived - self.published) * 1000

    @property
    def result_ms(self) -> float:
        return (self.result.result() - self.answered) * 1000


@dataclass(frozen=True)
class InFlight:
    """What ``IN_FLIGHT`` calls at once cost."""

    rss_mb: float
    rss_after_mb: float
    """Some seconds after they ended."""
    cpu_ms_per_call: float
    seconds: float


class Neighbours:
    """The provider, the sender of requests and the hearer of results."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._calls: dict[str, Call] = {}
        self.pause = 0.0
        self.events = 20

    async def call(self, llm: LLM, *, listen: bool = False) -> Call:
        """Send one request and wait for its result."""
        uid = uuid4().hex
        task = ObjectRef(namespace="default", name="bench", uid=uid)
        # The name of the user is how the provider knows whose request it has.
        messages = [*_CONVERSATION, Message(role="user", content=uid)]
        request = LLMRequest(task=task, turn=1, llm=ObjectRef.of(llm), messages=messages)
        if listen:
            await self._bus.live.tell(llm_listening_subject("default", uid), LLMListening(fresh=True))
        call = self._calls[uid] = Call(time.perf_counter())
        subject = llm_request_subject(llm.uid, "default", uid, 1, UNKNOWN_CONVERSATION)
        await self._bus.publish(subject, request, msg_id=uid, new_since=datetime.now(UTC))
        await call.result
        return self._calls.pop(uid)

    def handle_result(self, subject: str, data: bytes) -> None:
        parsed = parse_llm_result_subject(subject)
        call = self._calls.get(parsed[1]) if parsed else None
        if call is None or call.result.done():
            return
        if orjson.loads(data)["outcome"] != "Message":
            call.result.set_exception(RuntimeError(data.decode()))
        else:
            call.result.set_result(time.perf_counter())

    async def handle_chat(self, request: web.Request) -> web.StreamResponse:
        arrived = time.perf_counter()
        call = self._calls[orjson.loads(await request.read())["messages"][-1]["content"]]
        call.arrived = arrived
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for i in range(self.events):
            await response.write(_event({"content": f"word {i} of many "}))
            if self.pause:
                await asyncio.sleep(self.pause)
        await response.write(_event({}, "stop") + b"data: [DONE]\n\n")
        await response.write_eof()
        call.answered = time.perf_counter()
        return response

    async def handle_models(self, request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": []})


def _event(delta: dict[str, Any], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    chunk = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    return b"data: " + orjson.dumps(chunk) + b"\n\n"


async def _measure_hop_ms(bus: Bus) -> float:
    """p50 from the publish of a request to its arrival at a consumer, which is not the gateway's work."""
    uid, arrived, stopping = uuid4().hex, asyncio.Queue[float](), asyncio.Event()

    async def handle(_: Delivery[LLMRequest]) -> None:
        arrived.put_nowait(time.perf_counter())

    spec = llm_consumer(uid)
    consumer = Consumer(bus, spec, LLMRequest, handle, concurrency=LLM_MAX_IN_FLIGHT, grace=1.0)
    hops = []
    async with asyncio.TaskGroup() as group:
        group.create_task(consumer.run(stopping))
        for turn in range(1, CALLS + 1):
            task = ObjectRef(namespace="default", name="bench", uid=uid)
            llm = ObjectRef(namespace="default", name="hop", uid=uid)
            request = LLMRequest(task=task, turn=turn, llm=llm, messages=_CONVERSATION[:1])
            published = time.perf_counter()
            subject = llm_request_subject(uid, "default", uid, turn, UNKNOWN_CONVERSATION)
            await bus.publish(subject, request, msg_id=None, new_since=datetime.now(UTC))
            hops.append((await arrived.get() - published) * 1000)
        stopping.set()
    await bus.delete_consumer(spec.stream, spec.durable)
    return statistics.median(hops)


@asynccontextmanager
async def _neighbours(product: Product) -> AsyncIterator[tuple[Bus, Neighbours, list[LLM]]]:
    async with Bus.connect(product.status["natsUrl"], "kubechain-bench") as bus:
        neighbours = Neighbours(bus)
        app = web.Application()
        app.router.add_post("/v1/chat/completions", neighbours.handle_chat)
        app.router.add_get("/v1/models", neighbours.handle_models)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
            url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
            llms = [await _create_llm(product, name, url) for name in _LLMS]
            async with bus.live.hear(llm_result_subject("default", "*", 1, "*"), neighbours.handle_result):
                yield bus, neighbours, llms
        finally:
            await runner.cleanup()


async def _create_llm(product: Product, name: str, url: str) -> LLM:
    model = {"provider": "openai", "parameters": {"model": "m", "baseUrl": url}}
    await product.kube.create(build(LLM, name, model))
    async with asyncio.timeout(_READY_WITHIN):
        while not (llm := await product.kube.get(LLM, "default", name)).status.ready:  # noqa: ASYNC110 - a bounded wait
            await asyncio.sleep(0.05)
    return llm


async def measure_gateway(product: Product) -> str:
    """The figures as a Markdown table."""
    process = psutil.Process(product.pids()["llm-gateway"])
    async with _neighbours(product) as (bus, neighbours, llms):
        hop_ms = await _measure_hop_ms(bus)
        for _ in range(20):
            await neighbours.call(llms[0])
        before = _cpu(process)
        calls = [await neighbours.call(llms[0]) for _ in range(CALLS)]
        cpu_ms = (_cpu(process) - before) * 1000 / CALLS
        neighbours.pause, neighbours.events = PAUSE, EVENTS
        unheard = await _measure_in_flight(neighbours, llms, process, listen=False)
        heard = await _measure_in_flight(neighbours, llms, process, listen=True)
    return render_gateway(calls, hop_ms, cpu_ms, unheard, heard)


async def _measure_in_flight(
    neighbours: Neighbours, llms: list[LLM], process: psutil.Process, *, listen: bool
) -> InFlight:
    highest = 0.0

    async def watch() -> None:
        nonlocal highest
        while True:
            highest = max(highest, process.memory_info().rss / 2**20)
            await asyncio.sleep(0.2)

    began, before = time.monotonic(), _cpu(process)
    async with asyncio.TaskGroup() as group:
        watching = group.create_task(watch())
        async with asyncio.TaskGroup() as calls:
            for i in range(IN_FLIGHT):
                calls.create_task(neighbours.call(llms[i % len(llms)], listen=listen))
        watching.cancel()
    cpu_ms = (_cpu(process) - before) * 1000 / IN_FLIGHT
    seconds = time.monotonic() - began
    await asyncio.sleep(_AFTERWARDS)
    return InFlight(highest, process.memory_info().rss / 2**20, cpu_ms, seconds)


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def render_gateway(calls: list[Call], hop_ms: float, cpu_ms: float, unheard: InFlight, heard: InFlight) -> str:
    """A Markdown table; ``cpu_ms`` is that of one of the ``calls``, which were made one after another."""
    overheads = sorted(call.overhead_ms - hop_ms for call in calls)
    p95 = overheads[int(len(overheads) * 0.95)]
    request = statistics.median(call.request_ms for call in calls) - hop_ms
    result = statistics.median(call.result_ms for call in calls)
    rows = [
        ("overhead of a call, p50", f"{statistics.median(overheads):.1f} ms", f"{BUDGET_MS:g} ms"),
        ("... p95", f"{p95:.1f} ms", ""),
        ("... from its arrival until the provider is called, p50", f"{request:.1f} ms", ""),
        ("... from its last byte to the result, p50", f"{result:.1f} ms", ""),
        ("subtracted: from its publish to its arrival, p50", f"{hop_ms:.1f} ms", ""),
        ("CPU of such a call", f"{cpu_ms:.1f} ms", ""),
        (f"memory with {IN_FLIGHT} calls in flight", f"{unheard.rss_mb:.0f} MB", f"{BUDGET_MB:g} MB"),
        ("... that are all listened to", f"{heard.rss_mb:.0f} MB", f"{BUDGET_MB:g} MB"),
        ("... some seconds after they ended", f"{heard.rss_after_mb:.0f} MB", ""),
        (f"CPU of such a call of {EVENTS} events", f"{unheard.cpu_ms_per_call:.1f} ms", ""),
        ("... that is listened to", f"{heard.cpu_ms_per_call:.1f} ms", ""),
        (f"time for {IN_FLIGHT} calls of {EVENTS * PAUSE:g} s", f"{unheard.seconds:.1f} s", ""),
    ]
    lines = ["| llm-gateway, one replica | measured | budget |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])
