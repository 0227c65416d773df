"""Which cluster a command talks to."""

from __future__ import annotations

from collections.abc import MutableMapping

from kubechain_cli.localcluster.layout import Layout
from kubechain_cli.localcluster.state import read_running_state


def use_local_cluster(layout: Layout, env: MutableMapping[str, str]) -> None:
    """Set KUBECONFIG to the running local cluster's, unless the user has set one."""
    if env.get("KUBECONFIG"):
        return
    state = read_running_state(layout)
    if state is not None:
        env["KUBECONFIG"] = state.kubeconfig
