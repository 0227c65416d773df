"""The specification of one child process. Data only: ``child`` runs it, ``plan`` and ``services`` write it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path

from kubechain_cli.localcluster.backoff import RestartBackoff
from kubechain_cli.localcluster.probes import Probe


class StopStage(IntEnum):
    """When a process is stopped. Lower stages stop first, so that each can still say goodbye to what it depends on."""

    SERVICE = 0
    API = 1
    STORAGE = 2


@dataclass(frozen=True)
class ProcessSpec:
    """One process: what to run, when, and how to know that it is ready.

    ``after`` names processes and steps that have to be ready first. ``essential`` ones fail the whole start when they
    do not come up; the others are only reported. ``stop_grace`` is the time in seconds between SIGTERM and SIGKILL,
    ``look_every`` that between two looks at one that is ready: each wakes it, and its death is seen without.
    """

    name: str
    argv: tuple[str, ...]
    log_file: Path
    stage: StopStage
    port: int | None = None
    probe: Probe | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    after: tuple[str, ...] = ()
    essential: bool = True
    stop_grace: float = 3.0
    look_every: float = 5.0
    backoff: RestartBackoff = field(default_factory=RestartBackoff)
