"""What is done to containers while Tasks run. Each deed ends when what it was done to is ready again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from tests.chaos.history import History
from tests.chaos.journal import KILLED, Journal
from tests.chaos.until import until
from tests.containers import nats
from tests.containers import product as services
from tests.containers.box import Box
from tests.containers.product import Product

from kubechain_common.messages.topology import LLM_REQUESTS
from kubechain_common.testing.eventually import eventually

Choose = Callable[[Product], Box]

REQUESTS = LLM_REQUESTS.name
ASK_AGAIN_SECONDS = 0.1
BACK_SECONDS = 60.0
TAKE_OVER_SECONDS = 4.0
"""Followers wait for up to this long for a leader that says nothing, before they choose another one."""
DRAIN_SECONDS = 22
"""A service drains for up to 20."""


@dataclass(frozen=True)
class Deed:
    """``act`` does it, ``undo`` mends it after ``seconds``. ``kind`` is what the journal calls it.

    With ``others_go_on`` it is mended only after Tasks have moved without it.
    """

    kind: str
    choose: Choose
    act: Callable[[Box], object]
    undo: Callable[[Box], object]
    seconds: float = 0.0
    others_go_on: bool = False

    async def do(self, product: Product, journal: Journal, history: History) -> None:
        box = await asyncio.to_thread(self.choose, product)
        target = "nats" if box in product.nats else box.name
        note = journal.note_death(target) if self.kind == KILLED else journal.note_outage(target, self.kind)
        await asyncio.to_thread(self.act, box)
        try:
            await asyncio.sleep(self.seconds)
            if self.others_go_on:
                moved = await until(partial(has_moved, history, time.time()), BACK_SECONDS)
                assert moved, f"no Task has moved for {BACK_SECONDS:.0f} s while {box.name} was {self.kind}"
        finally:
            await asyncio.to_thread(self.undo, box)
        came_back = await wait_until(partial(is_ready, product, box))
        assert came_back, f"{box.name} was {self.kind}, and is not ready {BACK_SECONDS:.0f} s later\n{box.logs()}"
        note.end()


def has_moved(history: History, since: float) -> bool:
    return history.last_step > since


async def wait_until(condition: Callable[[], bool]) -> bool:
    """Whether it came true within ``BACK_SECONDS``; asking blocks, so a thread asks."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + BACK_SECONDS
    while not await asyncio.to_thread(condition):
        if loop.time() > deadline:
            return False
        await asyncio.sleep(ASK_AGAIN_SECONDS)
    return True


def is_ready(product: Product, box: Box) -> bool:
    return nats.is_ready(box) if box in product.nats else services.is_ready(box)


# --- whom ---


def service(name: str) -> Choose:
    return lambda product: product.services[name]


def only_node(product: Product) -> Box:
    [node] = product.nats
    return node


def leader(product: Product) -> Box:
    """Of the stream with the requests to the LLM; after a deed, the others may be choosing one yet."""
    found = eventually(lambda: nats.find_leader(product.nats, REQUESTS), BACK_SECONDS, what=f"a leader of {REQUESTS}")
    assert found is not None
    return found


def follower(product: Product) -> Box:
    first = leader(product)
    return next(node for node in product.nats if node is not first)


# --- what ---


def kill(choose: Choose) -> Deed:
    """SIGKILL, and a new process at once."""
    return Deed(KILLED, choose, Box.kill, Box.start)


def freeze(choose: Choose, seconds: float) -> Deed:
    """Its connections stay open and nothing answers."""
    return Deed("frozen", choose, Box.pause, Box.unpause, seconds)


def cut_off(choose: Choose, seconds: float) -> Deed:
    """Its network is gone: packets to it and from it are lost."""
    return Deed("cut off", choose, Box.cut, Box.mend, seconds)


def restart(choose: Choose) -> Deed:
    """SIGTERM, as a rolling update sends it."""
    return Deed("terminated", choose, partial(Box.stop, seconds=DRAIN_SECONDS), Box.start)


def without(deed: Deed) -> Deed:
    """The same, for long enough that others take over and Tasks go on without what it is done to."""
    return replace(deed, seconds=TAKE_OVER_SECONDS, others_go_on=True)
