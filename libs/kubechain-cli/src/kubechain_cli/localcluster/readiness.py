"""Whether each process of a cluster is ready now: it is asked, as its supervisor asks only now and then."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace

from kubechain_cli.localcluster.errors import LocalClusterError
from kubechain_cli.localcluster.layout import Layout
from kubechain_cli.localcluster.plan import build_processes, read_plan
from kubechain_cli.localcluster.probes import Probe, is_ready
from kubechain_cli.localcluster.state import ClusterState, ProcessState

Probes = Mapping[str, Probe | None]


async def ask_processes(layout: Layout, state: ClusterState) -> ClusterState:
    """The state with what its processes say, all asked at once; the supervisor's word where the plan can not be read.

    Takes as long as the slowest answer, and not longer than PROBE_TIMEOUT.
    """
    try:
        probes = {spec.name: spec.probe for spec in build_processes(layout, read_plan(layout))}
    except (OSError, ValueError, TypeError, KeyError, LocalClusterError):  # of a service that is not installed here
        return state
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(_ask(process, probes)) for process in state.processes]
    return replace(state, processes=tuple(task.result() for task in asked))


async def _ask(process: ProcessState, probes: Probes) -> ProcessState:
    if process.pid is None or process.name not in probes:
        return process
    return replace(process, ready=await is_ready(probes[process.name]))
