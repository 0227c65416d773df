"""One control plane for all scenarios, and the time that a round takes."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

# importlib mode leaves sys.path alone, so the repository's root has to be on it for `tests.chaos`.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.chaos.cluster import Cluster, running_cluster

from kubechain_common.kube.client import KubeClient

ROUND_SECONDS = 240


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The first test starts the control plane, so the time limit of unit tests is not for these."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.timeout(ROUND_SECONDS, func_only=True))


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running_cluster(tmp_path_factory.mktemp("chaos") / "state") as cluster:
        yield cluster


@pytest.fixture
async def kube(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[KubeClient]:
    monkeypatch.setenv("KUBECONFIG", str(cluster.layout.kubeconfig))
    async with KubeClient.connect("kubechain-chaos") as kube:
        yield kube
