"""Each service's image by itself: what it may do, when it is ready, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.containers.box import await_that
from tests.containers.nats import running_nats
from tests.containers.product import Stand, build_service, is_ready

from kubechain_cli.localcluster.services import SERVICES

pytestmark = pytest.mark.containers

LIVE_SECONDS = 40.0
READY_SECONDS = 60.0
DRAIN_SECONDS = 10


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_waits_for_what_it_needs_and_drains(stand: Stand, tmp_path: Path, name: str) -> None:
    gate = stand.place.make_gate(stand.cluster.port("kube-apiserver"))
    gate.close()
    nats_name = tmp_path.name.replace("_", "-")
    service = build_service(
        stand,
        name,
        gate,
        nats_url=f"nats://{nats_name}-0:4222",
        env={"KUBECHAIN_DRAIN_SECONDS": str(DRAIN_SECONDS)},
    )
    directory = tmp_path / nats_name
    directory.mkdir()
    with service:
        await_that(f"{name} is live", lambda: service.get("/livez") == 200, LIVE_SECONDS, service)
        assert service.get("/readyz") == 503
        gate.open()
        with running_nats(stand.place, stand.images["nats"], directory):
            await_that(f"{name} is ready", lambda: is_ready(service), READY_SECONDS, service)

            assert service.run("id", "-u") == (0, "65532")
            for forbidden in ("/app/x", "/etc/x", "/usr/bin/x"):
                code, said = service.run("touch", forbidden)
                assert code != 0, f"{forbidden} could be written"
                assert "Read-only file system" in said or "Permission denied" in said
            assert service.run("touch", "/tmp/x") == (0, "")

            assert service.stop(DRAIN_SECONDS + 5) < DRAIN_SECONDS
            assert service.exit_code == 0
        told = [json.loads(line) for line in service.logs().splitlines()]
    assert {line["service"] for line in told} == {name}
    assert "stopped" in [line["event"] for line in told]
