"""What the machine gives: cores that are shared with others, or are two halves of one, give less at some times than at
others, and all figures follow. So does what the first milliseconds after a rest cost, of which short steps and idle
services consist: a virtual machine whose memory was taken from its caches meanwhile has to fetch all of it again.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

_ROUNDS = 5
_WAKINGS = 20
_REST_SECONDS = 0.5


@dataclass(frozen=True)
class MachineSpeed:
    """Milliseconds of fixed pieces of Python work: a long one, and a short one without and with a rest before it."""

    alone: float
    on_all_cores: float
    awake: float
    woken: float

    def __str__(self) -> str:
        return (
            f"adding up ten million numbers in Python took {self.alone:.0f} ms,"
            f" and {self.on_all_cores:.0f} ms on all cores at once;\n"
            f"a short piece of work took {self.awake:.1f} ms of CPU,"
            f" and {self.woken:.1f} ms after half a second of sleep"
        )


def measure_machine() -> MachineSpeed:
    """Some seconds; nothing else should run."""
    cores = os.cpu_count() or 1
    with ProcessPoolExecutor(cores) as pool:
        alone = [pool.submit(_work).result() for _ in range(_ROUNDS)]
        together = [ms for _ in range(_ROUNDS) for ms in pool.map(_work_of, range(cores))]
    awake = [_work_shortly() for _ in range(2 * _WAKINGS)][_WAKINGS:]
    woken = [_work_after_a_rest() for _ in range(_WAKINGS)]
    return MachineSpeed(*map(statistics.median, (alone, together, awake, woken)))


def _work_of(_: int) -> float:
    return _work()


def _work() -> float:
    started = time.perf_counter()
    sum(range(10_000_000))
    return (time.perf_counter() - started) * 1000


def _work_after_a_rest() -> float:
    time.sleep(_REST_SECONDS)
    return _work_shortly()


def _work_shortly() -> float:
    started = time.thread_time()
    for _ in range(20):
        json.loads(json.dumps({"items": [{"number": number} for number in range(30)]}))
    return (time.thread_time() - started) * 1000
