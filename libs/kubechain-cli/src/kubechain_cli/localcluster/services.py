"""KubeChain's own services as child processes, started through their console scripts as in any deployment."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from kubechain_cli.localcluster.errors import LocalClusterError
from kubechain_cli.localcluster.layout import Layout
from kubechain_cli.localcluster.nats_users import password_file
from kubechain_cli.localcluster.probes import HttpProbe
from kubechain_cli.localcluster.processes import ProcessSpec, StopStage

SERVICES = ("task-controller", "llm-gateway", "toolcall-controller", "mcp-host", "human-bridge")
NAMESPACE = "kubechain-system"
"""Where a deployment runs the services, and where their Leases live here, too."""
PAGE_PORT = "human-bridge-page"
"""The second port of human-bridge: its page, and where answers arrive."""
_ISOLATION = "KUBECHAIN_MCP_ISOLATION"
_SERVERS_DATA = "KUBECHAIN_MCP_DATA"
_PUBLIC_URL = "KUBECHAIN_BRIDGE_PUBLIC_URL"
# A service drains for up to 20 seconds; after that it is stuck.
SERVICE_STOP_GRACE = 22.0
LOOK_EVERY = 15.0
"""Seconds: a service sleeps most of the time, and who wants to know whether it is ready asks it (``readiness``)."""


def scripts_dir() -> Path:
    """Where console scripts of this Python environment lie; the link to python itself must not be followed."""
    return Path(sys.executable).parent


def parse_services(text: str) -> tuple[str, ...]:
    """``all``, ``none``, or names separated by commas. Raises LocalClusterError for a name that is none of ours."""
    if text == "all":
        return SERVICES
    if text == "none":
        return ()
    names = tuple(dict.fromkeys(name.strip().removeprefix("kubechain-") for name in text.split(",") if name.strip()))
    unknown = [name for name in names if name not in SERVICES]
    if unknown or not names:
        raise LocalClusterError(
            f"Unknown service in --services {text!r}. Give `all`, `none`, or some of {', '.join(SERVICES)}."
        )
    return names


def service_script(name: str) -> Path:
    """The console script of a service. Raises LocalClusterError when its package is not installed."""
    script = scripts_dir() / f"kubechain-{name}"
    if not script.is_file():
        raise LocalClusterError(
            f"{script.name} is not beside {sys.executable}. Install the package {script.name} into this environment, "
            "or leave the service out with --services."
        )
    return script


def build_service_env(
    name: str,
    *,
    kubeconfig: Path,
    nats_url: str,
    port: int,
    page_port: int | None,
    namespace: str,
    nats_password_file: Path | None,
    servers_data: Path | None,
    base: Mapping[str, str] = os.environ,
) -> dict[str, str]:
    """What a service is told through its environment, on top of the caller's own variables."""
    return {
        "KUBECONFIG": str(kubeconfig),
        "KUBECHAIN_NATS_URL": nats_url,
        "KUBECHAIN_HTTP_PORT": str(port),
        "KUBECHAIN_NAMESPACE": namespace,
        "KUBECHAIN_POD_NAME": f"{name}-0",
        # mcp-host starts `uvx` and the like: those of this environment come first.
        "PATH": os.pathsep.join(part for part in (str(scripts_dir()), base.get("PATH", os.defpath)) if part),
        "PYTHONUNBUFFERED": "1",
        **({} if nats_password_file is None else _nats_env(name, nats_password_file)),
        **(_isolation_env(servers_data, base) if name == "mcp-host" else {}),
        **({} if page_port is None else _page_env(page_port, base)),
    }


def build_page_url(port: int) -> str:
    """Where a browser on this machine finds the page of human-bridge."""
    return f"http://127.0.0.1:{port}"


def _nats_env(user: str, password_file: Path) -> dict[str, str]:
    return {"KUBECHAIN_NATS_USER": user, "KUBECHAIN_NATS_PASSWORD_FILE": str(password_file)}


def _isolation_env(data: Path | None, base: Mapping[str, str]) -> dict[str, str]:
    """The isolation of MCP servers. On a developer's machine they are there to reach the developer's files; whoever
    wants it otherwise says so in the environment of ``up``.
    """
    return {
        _ISOLATION: base.get(_ISOLATION) or "none",
        **({} if data is None or base.get(_SERVERS_DATA) else {_SERVERS_DATA: str(data)}),
    }


def _page_env(port: int, base: Mapping[str, str]) -> dict[str, str]:
    """Where the page is. The caller knows best how people reach it from outside, through a tunnel perhaps; unless told,
    it is for this machine alone.
    """
    return {
        "KUBECHAIN_BRIDGE_HOST": "127.0.0.1",
        "KUBECHAIN_BRIDGE_PORT": str(port),
        _PUBLIC_URL: base.get(_PUBLIC_URL) or build_page_url(port),
    }


def build_service(
    layout: Layout,
    name: str,
    *,
    kubeconfig: Path,
    nats_url: str,
    port: int,
    page_port: int | None,
    namespace: str = NAMESPACE,
) -> ProcessSpec:
    """The specification of one service. Raises LocalClusterError when its package is not installed."""
    return ProcessSpec(
        name=name,
        argv=(str(service_script(name)),),
        env=build_service_env(
            name,
            kubeconfig=kubeconfig,
            nats_url=nats_url,
            port=port,
            page_port=page_port,
            namespace=namespace,
            nats_password_file=password_file(layout, name),
            servers_data=layout.data / "mcp",
        ),
        log_file=layout.log_file(name),
        port=port,
        probe=HttpProbe(port, "/readyz"),
        look_every=LOOK_EVERY,
        stage=StopStage.SERVICE,
        after=("crds", "rights", "nats"),
        essential=False,
        stop_grace=SERVICE_STOP_GRACE,
    )
