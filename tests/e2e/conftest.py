"""One product for all end-to-end tests, and a namespace for each of them.

KUBECHAIN_TEST_STATE_DIR names the state directory of a cluster that runs already (`kubechain up --detach --state-dir
X`), for quick runs while developing. Its human-bridge finds the people of the tests if it was started with
KUBECHAIN_BRIDGE_HUMANLAYER_URL=http://127.0.0.1:PORT, and the tests are with KUBECHAIN_TEST_HUMANLAYER_PORT=PORT. What
the tests share is in the package ``support``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

# importlib mode leaves sys.path alone, so the repository's root has to be on it for `tests.e2e.support`.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.e2e.support.api_server import api_server_of
from tests.e2e.support.background import BackgroundLoop
from tests.e2e.support.cluster import Cluster, existing_cluster, running_cluster
from tests.e2e.support.humanlayer import HumanLayer
from tests.e2e.support.otlp import SpanStore
from tests.e2e.support.witness import Witness
from tests.e2e.support.workspace import Workspace

from kubechain_cli.demo.page import PATH as PAGE_PATH
from kubechain_cli.demo.page import build_app as build_page

E2E_SECONDS = 180
LONG_FIRST = (
    "test_delegation",
    "test_scaling",
    "test_crash",
    "test_long_conversations",
    "test_inbox_page",
    "test_llm_limits",
    "test_readme",
)
"""So that no process begins with the longest file when the others have finished."""
CLUSTER = pytest.StashKey[Cluster]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The first test starts the product, so the time limit of unit tests is not for these."""
    here = Path(__file__).parent
    # The sort is stable: within a file, and among all others, the order stays.
    items.sort(key=lambda item: LONG_FIRST.index(item.path.stem) if item.path.stem in LONG_FIRST else len(LONG_FIRST))
    for item in items:
        if here in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(E2E_SECONDS, func_only=True))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure shows the end of the services' logs."""
    report = yield
    cluster = item.session.stash.get(CLUSTER, None)
    if report.failed and cluster is not None:
        report.sections.append(("logs of the services", cluster.tail_logs()))
    return report


@pytest.fixture(scope="session")
def session_servers() -> Iterator[BackgroundLoop]:
    with BackgroundLoop() as loop:
        yield loop


@pytest.fixture(scope="session")
def spans(session_servers: BackgroundLoop) -> SpanStore:
    """What the services export."""
    return SpanStore.serve(session_servers)


@pytest.fixture(scope="session")
def humanlayer() -> HumanLayer:
    """The HumanLayer API of all tests, and the people behind it."""
    return HumanLayer()


@pytest.fixture(scope="session")
def humanlayer_url(session_servers: BackgroundLoop, humanlayer: HumanLayer) -> str:
    port = int(os.environ.get("KUBECHAIN_TEST_HUMANLAYER_PORT", "0"))
    return session_servers.serve(humanlayer.build_app(), port)


@pytest.fixture(scope="session")
def cluster(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    spans: SpanStore,
    humanlayer_url: str,
) -> Iterator[Cluster]:
    """The whole product; started once."""
    running = os.environ.get("KUBECHAIN_TEST_STATE_DIR")
    if running:
        request.session.stash[CLUSTER] = cluster = existing_cluster(Path(running))
        yield cluster
        return
    with running_cluster(
        tmp_path_factory.mktemp("cluster"), otlp_url=spans.url, humanlayer_url=humanlayer_url
    ) as cluster:
        request.session.stash[CLUSTER] = cluster
        yield cluster


@pytest.fixture(scope="module")
def servers() -> Iterator[BackgroundLoop]:
    """Servers of one test module."""
    with BackgroundLoop() as loop:
        yield loop


@pytest.fixture(scope="module")
def page_url(servers: BackgroundLoop) -> str:
    """The tutorial's page about Luke Skywalker, served on this machine."""
    return servers.serve(build_page()) + PAGE_PATH


@pytest.fixture
def new_workspace(cluster: Cluster, servers: BackgroundLoop) -> Iterator[Callable[[], Workspace]]:
    """Makes namespaces; they go with the test."""
    made: list[Workspace] = []
    api_server = api_server_of(cluster.kubeconfig)

    def make() -> Workspace:
        namespace = f"e2e-{uuid4().hex[:8]}"
        api_server.create_namespace(namespace)
        made.append(Workspace(cluster, servers, namespace))
        return made[-1]

    yield make
    for workspace in made:
        api_server.delete_namespace(workspace.namespace)


@pytest.fixture
def workspace(new_workspace: Callable[[], Workspace]) -> Workspace:
    return new_workspace()


@pytest.fixture
def witness(workspace: Workspace) -> Iterator[Witness]:
    """What kubectl shows of the workspace from now on."""
    with Witness(workspace.kubectl) as witness:
        yield witness
