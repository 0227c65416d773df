"""All that ``up`` does before the supervisor starts: ports, keys, tokens, kubeconfig, configuration files, the plan."""

from __future__ import annotations

import subprocess
from pathlib import Path

from kubechain_cli.localcluster.certificates import ensure_pki
from kubechain_cli.localcluster.errors import ClusterApiError
from kubechain_cli.localcluster.files import write_atomic
from kubechain_cli.localcluster.kubeconfig import write_kubeconfig
from kubechain_cli.localcluster.layout import Layout, cache_root
from kubechain_cli.localcluster.nats import write_nats_config
from kubechain_cli.localcluster.nats_users import build_users_config
from kubechain_cli.localcluster.plan import (
    ADMIN,
    CONTROLLER_MANAGER,
    IDENTITIES,
    SERVICE_ACCOUNTS,
    Plan,
    controller_manager_kubeconfig,
    nats_config,
    port_names,
    service_kubeconfig,
    write_plan,
)
from kubechain_cli.localcluster.ports import assign_ports
from kubechain_cli.localcluster.services import service_script
from kubechain_cli.localcluster.tokens import ensure_tokens


def prepare(layout: Layout, *, binaries: dict[str, Path], services: tuple[str, ...], context: str | None) -> Plan:
    """Write all that the plan's processes read, then the plan itself.

    The caller holds the lock of the directory. Raises LocalClusterError when a service is not installed, no port is
    free or the context cannot be read.
    """
    for name in services:
        service_script(name)
    layout.create()
    ports = assign_ports(layout.ports, port_names(services, local=context is None), cache_root() / "ports.json")
    plan = Plan({name: str(path) for name, path in binaries.items()}, ports, services, context)
    if context is None:
        pki = ensure_pki(layout.pki)
        ensure_tokens(pki.tokens, IDENTITIES)
        write_kubeconfig(layout.kubeconfig, plan.server_url, pki, ADMIN)
        write_kubeconfig(controller_manager_kubeconfig(layout), plan.server_url, pki, CONTROLLER_MANAGER)
        for name, identity in SERVICE_ACCOUNTS.items():
            write_kubeconfig(service_kubeconfig(layout, name), plan.server_url, pki, identity)
    else:
        write_atomic(layout.kubeconfig, read_context(binaries["kubectl"], context))
    write_nats_config(nats_config(layout), ports["nats-monitor"], build_users_config(layout))
    write_plan(layout, plan)
    return plan


def read_context(kubectl: Path, context: str) -> str:
    """A kubeconfig with this context of the user's KUBECONFIG alone. Raises ClusterApiError when there is none such."""
    command = [str(kubectl), "config", "view", "--minify", "--flatten", "--raw", f"--context={context}"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise ClusterApiError(
            f"The context {context!r} cannot be read: {result.stderr.strip()}. "
            "`kubectl config get-contexts` lists those there are."
        )
    return result.stdout
