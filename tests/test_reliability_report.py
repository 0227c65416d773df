"""The committed report of the long sweep is of this product: of all its services, and of all scenarios there are."""

from __future__ import annotations

import json

from tests.chaos.report import render
from tests.chaos.round import ROOT
from tests.chaos.scenario import SCENARIOS

from kubechain_cli.localcluster.services import SERVICES

ROUNDS = json.loads((ROOT / "docs" / "reliability.json").read_text())


def test_the_page_is_what_the_figures_say() -> None:
    assert (ROOT / "docs" / "reliability.md").read_text() == render(ROUNDS)


def test_each_scenario_was_run_and_each_service_was_killed() -> None:
    assert {r["scenario"] for r in ROUNDS} == {scenario.name for scenario in SCENARIOS}
    killed = {name for r in ROUNDS for name in r["deaths"]}
    assert killed >= {*SERVICES, "nats", "etcd", "kube-apiserver"}


def test_so_much_was_killed_that_the_rest_counts_and_nothing_was_lost() -> None:
    assert sum(sum(r["deaths"].values()) for r in ROUNDS) >= 1000
    assert sum(r["tasks"] for r in ROUNDS) >= 3000
    for harm in (
        "lost_tasks",
        "lost_turns",
        "lost_calls",
        "duplicated_calls",
        "duplicated_asks",
        "repeated_unexplained",
    ):
        assert sum(r[harm] for r in ROUNDS) == 0
    assert [anomaly for r in ROUNDS for anomaly in r["anomalies"]] == []
