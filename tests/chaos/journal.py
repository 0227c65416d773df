"""What was done to the product, and for how long it was felt: the harness's own record."""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

KILLED, FROZEN, STORAGE_DELETED = "killed", "frozen", "storage deleted"


@dataclass
class Disruption:
    """From ``at`` to ``until`` (seconds since the epoch; None: still) ``target`` was dead, frozen or cut off."""

    target: str
    kind: str
    at: float
    until: float | None = None

    def end(self) -> None:
        self.until = time.time()


@dataclass
class Journal:
    """``deaths`` are processes killed by SIGKILL, ``outages`` everything else that was done."""

    disruptions: list[Disruption] = field(default_factory=list)
    deaths: Counter[str] = field(default_factory=Counter)
    outages: Counter[str] = field(default_factory=Counter)

    def note_death(self, target: str) -> Disruption:
        self.deaths[target] += 1
        return self._note(target, KILLED)

    def note_outage(self, target: str, kind: str) -> Disruption:
        self.outages[f"{target} {kind}"] += 1
        return self._note(target, kind)

    def _note(self, target: str, kind: str) -> Disruption:
        disruption = Disruption(target, kind, time.time())
        self.disruptions.append(disruption)
        return disruption


def write_journal(file: Path, journal: Journal) -> None:
    """For whoever looks into an anomaly."""
    file.write_text("".join(json.dumps(asdict(disruption)) + "\n" for disruption in journal.disruptions))
