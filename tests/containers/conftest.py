"""One engine, one control plane and one network for all tests of the containers.

The images are built first, which takes seconds when nothing changed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

import pytest

# importlib mode leaves sys.path alone, so the repository's root has to be on it for `tests.containers`.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
# Its image could be pulled from nowhere; what we start we end, and what is left over goes by its label.
os.environ["TESTCONTAINERS_RYUK_DISABLED"] = "true"

from scripts.engine import NO_ENGINE, NoEngineError, running_engine
from scripts.images.build import Plan, build_images, read_version
from tests.chaos.cluster import Cluster, running_cluster
from tests.containers.place import Place, running_place
from tests.containers.product import Stand

from kubechain_common.kube.client import KubeClient

SECONDS = 300


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The first test builds the images and starts the control plane, so the time limit is for a test alone."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.timeout(SECONDS, func_only=True))


@pytest.fixture(scope="session")
def engine() -> Iterator[None]:
    """Skips where no engine can run."""
    if reason := os.environ.get(NO_ENGINE):
        pytest.skip(f"no container engine: {reason}")
    try:
        with running_engine():
            yield
    except NoEngineError as reason:
        pytest.skip(f"no container engine: {reason}")


@pytest.fixture(scope="session")
def images(engine: None) -> Mapping[str, str]:
    """Tags by name, of this tree as it is."""
    return build_images(Plan(read_version()))


@pytest.fixture(scope="session")
def cluster(engine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running_cluster(tmp_path_factory.mktemp("cluster") / "state") as cluster:
        yield cluster


@pytest.fixture(scope="session")
def place(engine: None) -> Iterator[Place]:
    with running_place() as place:
        yield place


@pytest.fixture(scope="session")
def stand(cluster: Cluster, place: Place, images: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory) -> Stand:
    logs = tmp_path_factory.mktemp("stand") / "logs"
    logs.mkdir()
    logs.chmod(0o777)  # the tools write there as somebody else
    return Stand(cluster, place, images, logs)


@pytest.fixture
async def kube(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[KubeClient]:
    monkeypatch.setenv("KUBECONFIG", str(cluster.layout.kubeconfig))
    async with KubeClient.connect("kubechain-containers") as kube:
        yield kube
