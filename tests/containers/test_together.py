"""The whole product in containers, while they die, freeze, lose the network and are restarted in the middle of Tasks.

Every Task ends; each tool call ran once, or the model was told that its outcome is unknown.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.containers.deeds import cut_off, freeze, kill, only_node, restart, service
from tests.containers.nats import running_nats
from tests.containers.product import Product, Stand, running_product
from tests.containers.round import check_round

from kubechain_cli.localcluster.services import SERVICES
from kubechain_common.kube.client import KubeClient

pytestmark = pytest.mark.containers


@pytest.fixture(scope="module")
def product(stand: Stand, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    with (
        running_nats(stand.place, stand.images["nats"], tmp_path_factory.mktemp("one")) as nats,
        running_product(stand, nats) as product,
    ):
        yield product


async def test_tasks_end_though_every_container_is_killed(product: Product, kube: KubeClient) -> None:
    deeds = [kill(service(name)) for name in SERVICES]
    outcome = await check_round(product, kube, "killed", [*deeds, kill(only_node), kill(service("mcp-host"))])
    assert outcome.exposure.during_either, "nothing was in flight when something was killed"


async def test_tasks_end_though_containers_freeze_and_lose_the_network(product: Product, kube: KubeClient) -> None:
    deeds = [
        freeze(only_node, 2),
        cut_off(service("mcp-host"), 12),
        freeze(service("llm-gateway"), 2),
        cut_off(only_node, 2),
        cut_off(service("task-controller"), 2),
        freeze(service("toolcall-controller"), 2),
        cut_off(service("human-bridge"), 2),
    ]
    await check_round(product, kube, "cut-off", deeds)


async def test_an_orderly_restart_of_every_service_costs_nothing(product: Product, kube: KubeClient) -> None:
    await check_round(product, kube, "restarted", [restart(service(name)) for name in SERVICES], gentle=True)
