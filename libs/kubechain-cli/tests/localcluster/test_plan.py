"""The plan of a cluster: command lines, order, environment. Nothing is started."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from kubechain_cli.localcluster.control_plane import (
    build_api_server_command,
    build_etcd_command,
    choose_memory_limit,
)
from kubechain_cli.localcluster.errors import LocalClusterError
from kubechain_cli.localcluster.layout import Layout, default_state_dir
from kubechain_cli.localcluster.nats import build_nats_config
from kubechain_cli.localcluster.pki import Pki
from kubechain_cli.localcluster.plan import Plan, build_processes, port_names, read_plan, write_plan
from kubechain_cli.localcluster.processes import StopStage
from kubechain_cli.localcluster.services import NAMESPACE, SERVICES, build_service_env, parse_services
from kubechain_common.policies import rbac

BINARIES = {name: f"/bin/{name}" for name in ("etcd", "kube-apiserver", "kube-controller-manager", "nats-server")}


def make_plan(services: tuple[str, ...] = (), context: str | None = None) -> Plan:
    names = port_names(services, local=context is None)
    return Plan(BINARIES, {name: 20_000 + number for number, name in enumerate(names)}, services, context)


def test_everything_listens_on_this_machine_only(tmp_path: Path) -> None:
    etcd = build_etcd_command(Path("/bin/etcd"), data_dir=tmp_path, client_port=1, peer_port=2)
    assert "--listen-client-urls=http://127.0.0.1:1" in etcd
    assert "--unsafe-no-fsync" in etcd
    api = build_api_server_command(Path("/bin/api"), pki=Pki(tmp_path), port=3, etcd_port=1, cert_dir=tmp_path)
    assert {"--bind-address=127.0.0.1", "--secure-port=3", "--authorization-mode=RBAC"} <= set(api)
    assert f"--token-auth-file={tmp_path / 'tokens.csv'}" in api
    assert 'http: "127.0.0.1:5"' in build_nats_config(5)
    assert "max_payload: 8388608" in build_nats_config(5)


def test_the_order_of_a_local_cluster(tmp_path: Path) -> None:
    specs = {spec.name: spec for spec in build_processes(Layout(tmp_path), make_plan())}
    assert {name: spec.after for name, spec in specs.items()} == {
        "etcd": (),
        "kube-apiserver": ("etcd",),
        "kube-controller-manager": ("crds",),
        "nats": (),
    }
    assert specs["kube-apiserver"].stage < specs["etcd"].stage
    assert all(spec.essential for spec in specs.values())


def test_the_parts_of_the_control_plane_collect_garbage_rarely_and_within_a_bound(tmp_path: Path) -> None:
    specs = {spec.name: spec for spec in build_processes(Layout(tmp_path), make_plan())}
    names = ("etcd", "kube-apiserver", "kube-controller-manager")
    assert all({"GOGC", "GOMEMLIMIT"} <= set(specs[name].env) for name in names)


@pytest.mark.parametrize(("machine", "limit"), [(2048, 1024), (8192, 1024), (12288, 1536), (65536, 2048)])
def test_the_bound_is_a_part_of_the_machines_memory(machine: int, limit: int) -> None:
    assert choose_memory_limit(machine) == limit


def test_with_a_context_only_nats_is_ours(tmp_path: Path) -> None:
    assert [spec.name for spec in build_processes(Layout(tmp_path), make_plan(context="mine"))] == ["nats"]


def test_services_wait_for_crds_and_nats_and_stop_first(tmp_path: Path) -> None:
    specs = build_processes(Layout(tmp_path), make_plan(("mcp-host",)))
    service = specs[-1]
    assert (service.name, service.after, service.stage) == ("mcp-host", ("crds", "rights", "nats"), StopStage.SERVICE)
    assert service.env["KUBECHAIN_HTTP_PORT"] == str(service.port)


def test_a_service_signs_in_under_its_own_name_where_the_cluster_is_ours(tmp_path: Path) -> None:
    ours, theirs = (
        build_processes(Layout(tmp_path), make_plan(("mcp-host",), context=context))[-1].env for context in (None, "x")
    )
    assert (ours["KUBECONFIG"], ours["KUBECHAIN_NAMESPACE"]) == (
        str(tmp_path / "pki" / "mcp-host.kubeconfig"),
        "kubechain-system",
    )
    assert (theirs["KUBECONFIG"], theirs["KUBECHAIN_NAMESPACE"]) == (str(tmp_path / "kubeconfig"), "default")


def test_the_services_live_where_a_deployment_has_them() -> None:
    assert NAMESPACE == rbac.NAMESPACE
    assert SERVICES == rbac.SERVICES


def test_human_bridge_is_told_where_its_page_is_and_so_is_the_user(tmp_path: Path) -> None:
    plan = make_plan(("human-bridge", "mcp-host"))
    specs = {spec.name: spec for spec in build_processes(Layout(tmp_path), plan)}
    port = plan.ports["human-bridge-page"]
    assert plan.page_url == f"http://127.0.0.1:{port}"
    env = specs["human-bridge"].env
    assert (env["KUBECHAIN_BRIDGE_HOST"], env["KUBECHAIN_BRIDGE_PORT"]) == ("127.0.0.1", str(port))
    assert env["KUBECHAIN_BRIDGE_PUBLIC_URL"] == plan.page_url
    assert port != specs["human-bridge"].port
    assert "KUBECHAIN_BRIDGE_PORT" not in specs["mcp-host"].env
    assert make_plan(("mcp-host",)).page_url is None


def make_service_env(
    name: str, base: Mapping[str, str], *, page_port: int | None = None, servers_data: Path | None = None
) -> dict[str, str]:
    return build_service_env(
        name,
        kubeconfig=Path("/k"),
        nats_url="nats://x",
        port=7,
        page_port=page_port,
        namespace=NAMESPACE,
        nats_password_file=None,
        servers_data=servers_data,
        base=base,
    )


def test_a_service_is_told_its_surroundings() -> None:
    env = make_service_env("llm-gateway", {"PATH": "/usr/bin"})
    assert env["KUBECONFIG"] == "/k"
    assert env["KUBECHAIN_NATS_URL"] == "nats://x"
    assert env["KUBECHAIN_POD_NAME"] == "llm-gateway-0"
    assert env["PATH"] == f"{Path(sys.executable).parent}{os.pathsep}/usr/bin"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "http://127.0.0.1:8"),
        ({"KUBECHAIN_BRIDGE_PUBLIC_URL": ""}, "http://127.0.0.1:8"),
        ({"KUBECHAIN_BRIDGE_PUBLIC_URL": "https://people.example.com"}, "https://people.example.com"),
    ],
)
def test_the_caller_says_how_people_reach_the_page_from_outside(given: dict[str, str], told: str) -> None:
    env = make_service_env("human-bridge", given, page_port=8)
    assert env["KUBECHAIN_BRIDGE_PUBLIC_URL"] == told


def test_servers_reach_the_users_files_unless_he_says_otherwise() -> None:
    def build(**given: str) -> dict[str, str]:
        return make_service_env("mcp-host", given, servers_data=Path("/state/mcp"))

    assert build()["KUBECHAIN_MCP_ISOLATION"] == "none"
    chosen = build(KUBECHAIN_MCP_ISOLATION="landlock")
    assert (chosen["KUBECHAIN_MCP_ISOLATION"], chosen["KUBECHAIN_MCP_DATA"]) == ("landlock", "/state/mcp")
    assert "KUBECHAIN_MCP_DATA" not in build(KUBECHAIN_MCP_DATA="/mine"), "the caller's own variables are there anyway"


def test_the_folders_of_servers_go_with_the_run(tmp_path: Path) -> None:
    layout = Layout.at(tmp_path)
    specs = {spec.name: spec for spec in build_processes(layout, make_plan(("mcp-host",)))}
    assert Path(specs["mcp-host"].env["KUBECHAIN_MCP_DATA"]).is_relative_to(layout.data)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("all", SERVICES),
        ("none", ()),
        ("mcp-host, kubechain-llm-gateway,mcp-host", ("mcp-host", "llm-gateway")),
    ],
)
def test_services_option(text: str, names: tuple[str, ...]) -> None:
    assert parse_services(text) == names


@pytest.mark.parametrize("text", ["", ",", "task-control"])
def test_unknown_services_are_refused(text: str) -> None:
    with pytest.raises(LocalClusterError, match="task-controller"):
        parse_services(text)


def test_the_plan_survives_its_file(tmp_path: Path) -> None:
    plan = make_plan(("mcp-host",), context="mine")
    write_plan(Layout(tmp_path), plan)
    assert read_plan(Layout(tmp_path)) == plan


def test_state_dir_order() -> None:
    env = {"XDG_STATE_HOME": "/s"}
    assert default_state_dir({**env, "KUBECHAIN_HOME": "/h"}) == Path("/h")
    assert default_state_dir(env) == Path("/s/kubechain")
    assert default_state_dir({}) == Path.home() / ".local" / "state" / "kubechain"
