"""One cluster for this folder, with the images that the sources give. Each file leaves it bare, and the last one goes
with it: loading the images takes longer than most of what is tested.

Where none can be (no root, no container engine for the images), every test is skipped with the reason.
"""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

# importlib mode leaves sys.path alone, so the repository's root has to be on it for `tests` and `scripts`.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.cluster.support.clusters import Cluster, NoClusterError, has_images, open_cluster
from tests.cluster.support.images import NoImagesError, build_archive
from tests.cluster.support.product import NAMESPACE, Product
from tests.e2e.support.background import BackgroundLoop

# The tutorial's steps are run from there.
pytest.register_assert_rewrite("tests.e2e.test_seed_walkthrough", "tests.e2e.test_seed_approval")

STEP_SECONDS = 300
CLUSTER = pytest.StashKey[Cluster]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(STEP_SECONDS, func_only=True))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure shows the end of the logs."""
    report = yield
    cluster = item.session.stash.get(CLUSTER, None)
    if report.failed and cluster is not None:
        report.sections.append(("logs of the services", Product(cluster.kubectl(NAMESPACE)).logs()))
        report.sections.append(("logs of the cluster", cluster.describe()))
    return report


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A bare cluster whose nodes have the images."""
    try:
        archive = None if has_images() else build_archive()
        with open_cluster(tmp_path_factory.mktemp("cluster") / "state") as cluster:
            request.session.stash[CLUSTER] = cluster
            if archive:
                cluster.load_images(archive)
            yield cluster
            del request.session.stash[CLUSTER]
    except (NoClusterError, NoImagesError) as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def product(cluster: Cluster) -> Product:
    return Product(cluster.kubectl(NAMESPACE))


@pytest.fixture(scope="module")
def servers(cluster: Cluster) -> Iterator[BackgroundLoop]:
    """Servers of one test module, where pods reach them."""
    with BackgroundLoop(cluster.machine_address) as loop:
        yield loop
