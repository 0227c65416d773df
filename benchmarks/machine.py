"""What the machine gives: cores that are shared with others, or are two halves of one, give less at some times than at
others, and all figures follow.
"""

from __future__ import annotations

import os
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

_ROUNDS = 5


@dataclass(frozen=True)
class MachineSpeed:
    """Milliseconds of a fixed piece of Python work."""

    alone: float
    on_all_cores: float

    def __str__(self) -> str:
        return (
            f"adding up ten million numbers in Python took {self.alone:.0f} ms,"
            f" and {self.on_all_cores:.0f} ms on all cores at once"
        )


def measure_machine() -> MachineSpeed:
    """Some seconds; nothing else should run."""
    cores = os.cpu_count() or 1
    with ProcessPoolExecutor(cores) as pool:
        alone = [pool.submit(_work).result() for _ in range(_ROUNDS)]
        together = [ms for _ in range(_ROUNDS) for ms in pool.map(_work_of, range(cores))]
    return MachineSpeed(statistics.median(alone), statistics.median(together))


def _work_of(_: int) -> float:
    return _work()


def _work() -> float:
    started = time.perf_counter()
    sum(range(10_000_000))
    return (time.perf_counter() - started) * 1000
