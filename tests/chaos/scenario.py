"""A scenario: what is started, and what is done to it while Tasks run."""

from __future__ import annotations

from dataclasses import dataclass

from tests.chaos import deeds
from tests.chaos.deeds import Deed


@dataclass(frozen=True)
class Scenario:
    """``deeds`` are drawn by weight, one every ``pace`` seconds on average, for ``seconds`` (``short`` in CI).

    ``first`` is done once at the start, for what a short round might not draw. ``gentle`` ones may cost nothing at all:
    no LLM request twice, no call of unknown outcome.
    """

    name: str
    text: str
    deeds: tuple[tuple[int, Deed], ...]
    first: tuple[Deed, ...] = ()
    replicas: int = 1
    cuttable: bool = False
    gentle: bool = False
    pace: float = 1.0
    seconds: float = 120.0
    short: float = 10.0


SCENARIOS = (
    Scenario(
        "deaths",
        "SIGKILL of a random service or nats-server, now and then of all of them at once",
        ((12, deeds.kill_a_service), (9, deeds.kill_nats), (1, deeds.kill_all)),
        seconds=240.0,
    ),
    Scenario(
        "storage-lost",
        "JetStream's storage deleted, nats-server killed; services killed meanwhile",
        ((1, deeds.lose_the_storage), (4, deeds.kill_a_service)),
        first=(deeds.lose_the_storage,),
    ),
    Scenario(
        "control-plane",
        "kube-apiserver stopped for 20 s; kube-apiserver, etcd and services killed",
        ((2, deeds.kill_the_control_plane), (4, deeds.kill_a_service), (3, deeds.kill_nats)),
        first=(deeds.stop_the_api_server,),
        pace=1.5,
        short=22.0,
    ),
    Scenario(
        "cut-off",
        "a service cut off from the API server or from NATS (refused, silent, reset); services killed",
        ((3, deeds.cut_a_service_off), (3, deeds.kill_a_service)),
        cuttable=True,
    ),
    Scenario(
        "replicas",
        "two of everything: leaders killed, frozen for longer than their lease, and killed together with their standby",
        (
            (4, deeds.kill_a_leader),
            (4, deeds.kill_a_service),
            (3, deeds.kill_nats),
            (1, deeds.kill_leader_and_standby),
            (1, deeds.freeze_a_leader),
            (1, deeds.freeze_a_service),
        ),
        first=(deeds.freeze_a_leader,),
        replicas=2,
        seconds=180.0,
        short=20.0,
    ),
    Scenario(
        "rolling",
        "SIGTERM to one service after another, as an update sends it",
        ((1, deeds.restart_a_service),),
        gentle=True,
        pace=0.5,
        seconds=45.0,
        short=8.0,
    ),
)
BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}
ORDER = (
    "deaths", "replicas", "storage-lost", "control-plane", "deaths", "cut-off", "rolling",
)  # fmt: skip
"""The rounds of a long sweep, over and over."""
