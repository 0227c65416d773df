"""Which cluster a command talks to."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping

from kubechain_cli.localcluster.layout import Layout
from kubechain_cli.localcluster.state import read_running_state


def use_local_cluster(layout: Layout, env: MutableMapping[str, str]) -> None:
    """Set KUBECONFIG to the running local cluster's, unless the user has set one."""
    if env.get("KUBECONFIG"):
        return
    state = read_running_state(layout)
    if state is not None:
        env["KUBECONFIG"] = state.kubeconfig


def find_nats_url(layout: Layout, env: Mapping[str, str]) -> str | None:
    """Where the cluster's NATS is: what the user says, else that of the local cluster if it is the one we talk to."""
    if env.get("KUBECHAIN_NATS_URL"):
        return env["KUBECHAIN_NATS_URL"]
    state = read_running_state(layout)
    return state.nats_url if state is not None and state.kubeconfig == env.get("KUBECONFIG") else None
