"""What one cluster runs: written by ``up``, read by the supervisor, turned into process specifications.

With a context of the user's own there is no control plane of ours: only NATS and the services.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from kubechain_cli.localcluster import control_plane
from kubechain_cli.localcluster.files import write_atomic
from kubechain_cli.localcluster.layout import Layout
from kubechain_cli.localcluster.nats import build_nats_command
from kubechain_cli.localcluster.pki import Pki
from kubechain_cli.localcluster.probes import HttpProbe
from kubechain_cli.localcluster.processes import ProcessSpec, StopStage
from kubechain_cli.localcluster.services import NAMESPACE, PAGE_PORT, SERVICES, build_page_url, build_service
from kubechain_cli.localcluster.tokens import administrator, service_account

ADMIN = administrator("admin")
CONTROLLER_MANAGER = administrator("controller-manager")
SERVICE_ACCOUNTS = {name: service_account(NAMESPACE, name) for name in SERVICES}
IDENTITIES = (ADMIN, CONTROLLER_MANAGER, *SERVICE_ACCOUNTS.values())
USERS_NAMESPACE = "default"
"""Where the Leases live in a cluster of the user's own, in which we make no namespace."""
CONTROL_PLANE_PORTS = ("etcd", "etcd-peer", "kube-apiserver", "kube-controller-manager")
NATS_PORTS = ("nats", "nats-monitor")
# Requests in flight have drained by then, and the controller manager holds no state at all; left alone both go on
# for seconds flushing and waiting for what nobody here needs.
API_STOP_GRACE = 0.6


@dataclass(frozen=True)
class Plan:
    """What is run. ``context`` is the user's own kubeconfig context, or None for a local control plane."""

    binaries: dict[str, str]
    ports: dict[str, int]
    services: tuple[str, ...]
    context: str | None = None

    @property
    def nats_url(self) -> str:
        return f"nats://127.0.0.1:{self.ports['nats']}"

    @property
    def server_url(self) -> str:
        """The address of the local API server."""
        return f"https://127.0.0.1:{self.ports['kube-apiserver']}"

    @property
    def page_url(self) -> str | None:
        """Where human-bridge serves its page, if it is run."""
        return build_page_url(self.ports[PAGE_PORT]) if "human-bridge" in self.services else None

    def binary(self, name: str) -> Path:
        return Path(self.binaries[name])


def port_names(services: tuple[str, ...], *, local: bool) -> tuple[str, ...]:
    """Every port that a plan with these services needs."""
    pages = (PAGE_PORT,) if "human-bridge" in services else ()
    return (*(CONTROL_PLANE_PORTS if local else ()), *NATS_PORTS, *services, *pages)


def write_plan(layout: Layout, plan: Plan) -> None:
    """Store the plan for the supervisor."""
    write_atomic(layout.plan, json.dumps(asdict(plan), indent=2) + "\n")


def read_plan(layout: Layout) -> Plan:
    """The plan that ``up`` stored."""
    raw = json.loads(layout.plan.read_text())
    return Plan(**{**raw, "services": tuple(raw["services"])})


def nats_config(layout: Layout) -> Path:
    return layout.root / "nats.conf"


def controller_manager_kubeconfig(layout: Layout) -> Path:
    return layout.pki / "controller-manager.kubeconfig"


def service_kubeconfig(layout: Layout, name: str) -> Path:
    """The kubeconfig by which a service signs in to the local API server under its own name."""
    return layout.pki / f"{name}.kubeconfig"


def build_processes(layout: Layout, plan: Plan) -> list[ProcessSpec]:
    """All processes of the plan, each naming what it has to wait for."""
    specs = [] if plan.context else _build_control_plane(layout, plan)
    specs.append(_build_nats(layout, plan))
    for name in plan.services:
        specs.append(
            build_service(
                layout,
                name,
                # A cluster of the user's own is reached with the user's rights: we grant ourselves none there.
                kubeconfig=layout.kubeconfig if plan.context else service_kubeconfig(layout, name),
                namespace=USERS_NAMESPACE if plan.context else NAMESPACE,
                nats_url=plan.nats_url,
                port=plan.ports[name],
                page_port=plan.ports[PAGE_PORT] if name == "human-bridge" else None,
            )
        )
    return specs


def _build_control_plane(layout: Layout, plan: Plan) -> list[ProcessSpec]:
    pki, ports, cert_dir = Pki(layout.pki), plan.ports, layout.pki
    go_runtime = control_plane.build_go_runtime()
    etcd = ProcessSpec(
        name="etcd",
        argv=control_plane.build_etcd_command(
            plan.binary("etcd"),
            data_dir=layout.data / "etcd",
            client_port=ports["etcd"],
            peer_port=ports["etcd-peer"],
        ),
        env=go_runtime,
        log_file=layout.log_file("etcd"),
        port=ports["etcd"],
        probe=HttpProbe(ports["etcd"], "/readyz"),
        stage=StopStage.STORAGE,
    )
    api_server = ProcessSpec(
        name="kube-apiserver",
        argv=control_plane.build_api_server_command(
            plan.binary("kube-apiserver"),
            pki=pki,
            port=ports["kube-apiserver"],
            etcd_port=ports["etcd"],
            cert_dir=cert_dir,
        ),
        env=go_runtime,
        log_file=layout.log_file("kube-apiserver"),
        port=ports["kube-apiserver"],
        probe=HttpProbe(ports["kube-apiserver"], "/readyz", pki.ca_cert),
        stage=StopStage.API,
        after=("etcd",),
        stop_grace=API_STOP_GRACE,
    )
    controller_manager = ProcessSpec(
        name="kube-controller-manager",
        argv=control_plane.build_controller_manager_command(
            plan.binary("kube-controller-manager"),
            pki=pki,
            port=ports["kube-controller-manager"],
            kubeconfig=controller_manager_kubeconfig(layout),
            cert_dir=cert_dir,
        ),
        env=go_runtime,
        log_file=layout.log_file("kube-controller-manager"),
        port=ports["kube-controller-manager"],
        probe=HttpProbe(ports["kube-controller-manager"], "/healthz", pki.ca_cert),
        stage=StopStage.API,
        # The garbage collector looks for new kinds every 30 seconds only: started after the CRDs it knows them at once.
        after=("crds",),
        stop_grace=API_STOP_GRACE,
    )
    return [etcd, api_server, controller_manager]


def _build_nats(layout: Layout, plan: Plan) -> ProcessSpec:
    return ProcessSpec(
        name="nats",
        argv=build_nats_command(
            plan.binary("nats-server"),
            config=nats_config(layout),
            store_dir=layout.data / "nats",
            port=plan.ports["nats"],
        ),
        log_file=layout.log_file("nats"),
        port=plan.ports["nats"],
        probe=HttpProbe(plan.ports["nats-monitor"], "/healthz"),
        stage=StopStage.STORAGE,
    )
