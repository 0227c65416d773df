"""A short round of every scenario: nothing is lost, nothing happens twice without a word. ``make chaos`` runs more.

A failure names the seed: KUBECHAIN_CHAOS_SEED does the same again, as far as the timing of a dozen processes lets it.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from tests.chaos.cluster import Cluster
from tests.chaos.report import summary
from tests.chaos.round import run_round
from tests.chaos.scenario import SCENARIOS, Scenario

from kubechain_common.kube.client import KubeClient

IN_FLIGHT = 20
"""Few, so that their end need not be waited for long."""

pytestmark = pytest.mark.chaos

SEED = os.environ.get("KUBECHAIN_CHAOS_SEED") or str(random.SystemRandom().randrange(10**6))


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
async def test_nothing_is_lost_and_nothing_happens_twice(
    cluster: Cluster, kube: KubeClient, scenario: Scenario, tmp_path: Path
) -> None:
    seed, directory = f"{SEED}.{scenario.name}", tmp_path / f"chaos-{scenario.name}"
    outcome = await run_round(cluster, kube, scenario, seed, directory, scenario.short, IN_FLIGHT)
    print(summary(outcome))
    assert outcome.verdict.tasks > 0
    assert outcome.journal.disruptions, "nothing was done"
    assert not outcome.verdict.anomalies, f"{summary(outcome)}\nthe logs are in {tmp_path}"
