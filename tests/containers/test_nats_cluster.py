"""Three nodes of NATS, and what is kept on all of them: whichever is lost, Tasks go on without it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.containers.box import await_that
from tests.containers.deeds import cut_off, follower, freeze, kill, leader, without
from tests.containers.nats import read_replicas, running_nats
from tests.containers.product import Product, Stand, running_product
from tests.containers.round import check_round

from kubechain_common.kube.client import KubeClient
from kubechain_common.messages.topology import CLAIMS_BUCKET, SHARED_BUCKET, STARTED_CALLS_BUCKET, STREAMS

pytestmark = pytest.mark.containers

STORED = {
    *(stream.name for stream in STREAMS),
    f"KV_{STARTED_CALLS_BUCKET}",
    f"KV_{SHARED_BUCKET}",
    f"OBJ_{CLAIMS_BUCKET}",
}


@pytest.fixture(scope="module")
def product(stand: Stand, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    with (
        running_nats(stand.place, stand.images["nats"], tmp_path_factory.mktemp("three"), nodes=3) as nats,
        running_product(stand, nats, {"KUBECHAIN_NATS_REPLICAS": "3"}) as product,
    ):
        yield product


def test_everything_is_kept_on_three_nodes(product: Product) -> None:
    wanted = dict.fromkeys(STORED, 3)
    await_that(
        f"all of {sorted(STORED)} have three replicas",
        lambda: {name: read_replicas(product.nats).get(name) for name in STORED} == wanted,
        20,
    )


async def test_tasks_go_on_without_any_one_node(product: Product, kube: KubeClient) -> None:
    deeds = [without(kill(leader)), without(cut_off(leader, 0)), without(freeze(leader, 0)), without(kill(follower))]
    await check_round(product, kube, "three-nodes", deeds)
