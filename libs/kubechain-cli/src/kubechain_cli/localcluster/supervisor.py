"""The supervisor: starts every process of a plan in dependency order, keeps it alive, stops all at the end.

    python -m kubechain_cli.localcluster.supervisor --state-dir DIR --lock-fd N [--notify-fd N]

Every process and step is a task that first waits for those it names; what does not depend on each other comes up side
by side. Any change is written to state.json at once, or as soon as that works again: neither a full disk nor a terminal
that is gone ends a process that runs. Progress goes to ``report`` (and over the notify pipe to ``up --detach``) as
small dicts: {"ready": name, "seconds": s}, {"died": name, "exit": code, "delay": s}, {"unwritten": text}, and in the
end {"up": seconds} or {"failed": text}.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from kubechain_cli.localcluster import crds, policies, rights
from kubechain_cli.localcluster.child import Child
from kubechain_cli.localcluster.errors import LocalClusterError, ProcessFailedError
from kubechain_cli.localcluster.files import tail
from kubechain_cli.localcluster.identity import read_start
from kubechain_cli.localcluster.layout import Layout
from kubechain_cli.localcluster.lock import keep_lock
from kubechain_cli.localcluster.pki import Pki
from kubechain_cli.localcluster.plan import ADMIN, Plan, build_processes, read_plan
from kubechain_cli.localcluster.processes import StopStage
from kubechain_cli.localcluster.state import ClusterState, ProcessState, write_state
from kubechain_cli.signals import ending_signals

Report = Callable[[dict[str, Any]], None]
# An essential process that dies this often before it was ever ready will not get better.
MAX_DEATHS_AT_START = 3
START_TIMEOUT = 90.0
STEPS = ("crds", "rights", "policies")
REWRITE_SECONDS = 1.0


class Supervisor:
    """Runs one plan. Build it inside a running event loop."""

    def __init__(self, layout: Layout, plan: Plan, report: Report) -> None:
        self._layout = layout
        self._plan = plan
        self._report = report
        self._children = {spec.name: Child(spec, self._on_change) for spec in build_processes(layout, plan)}
        self._ready = {name: child.became_ready for name, child in self._children.items()}
        self._ready |= {step: asyncio.Event() for step in STEPS}
        self._reported: set[str] = set()
        self._deaths: dict[str, int] = dict.fromkeys(self._children, 0)
        self._started_at = time.time()
        self._complete = False
        self._stopping = asyncio.Event()
        self._failure: LocalClusterError | None = None
        self._rewrite: asyncio.TimerHandle | None = None

    def request_stop(self) -> None:
        """Begin to stop; ``run`` returns when everything is down."""
        self._stopping.set()

    async def run(self) -> None:
        """Run until ``request_stop``. Raises LocalClusterError when the cluster could not come up."""
        self._write_state()
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._run_child(child)) for child in self._children.values()]
            tasks.append(group.create_task(self._guard(self._install_crds())))
            tasks.append(group.create_task(self._guard(self._grant_rights())))
            tasks.append(group.create_task(self._guard(self._install_policies())))
            tasks.append(group.create_task(self._guard(self._await_ready())))
            await self._stopping.wait()
            await self._stop_children()
            for task in tasks:
                task.cancel()
        self._forget_rewrite()
        with suppress(OSError):  # what it names is dead, as everyone can see
            self._layout.state.unlink(missing_ok=True)
        if self._failure is not None:
            raise self._failure

    async def _run_child(self, child: Child) -> None:
        await self._wait_for(child.spec.after)
        await child.run()

    async def _install_crds(self) -> None:
        # Importing the models takes as long as etcd needs to start: do it meanwhile.
        manifests = await asyncio.to_thread(crds.load_crds)
        plan, layout = self._plan, self._layout
        if plan.context:
            await crds.install_crds_with_kubectl(plan.binary("kubectl"), layout.kubeconfig, manifests)
        else:
            await self._wait_for(("kube-apiserver",))
            await crds.install_crds(plan.server_url, Pki(layout.pki), ADMIN, manifests)
        self._ready["crds"].set()
        self._report_ready("crds")

    async def _grant_rights(self) -> None:
        if not self._plan.context:
            manifests = await asyncio.to_thread(rights.load_rights)
            await self._wait_for(("kube-apiserver",))
            await rights.grant_rights(self._plan.server_url, Pki(self._layout.pki), ADMIN, manifests)
            self._report_ready("rights")
        self._ready["rights"].set()

    async def _install_policies(self) -> None:
        manifests = await asyncio.to_thread(policies.load_policies)
        plan, layout = self._plan, self._layout
        if plan.context:
            await self._wait_for(("crds",))
            await policies.install_policies_with_kubectl(plan.binary("kubectl"), layout.kubeconfig, manifests)
        else:
            local = (plan.server_url, Pki(layout.pki), ADMIN, manifests)
            await self._wait_for(("kube-apiserver",))
            await policies.apply_policies(*local)
            await self._wait_for(("crds",))
            await policies.await_policies(*local)
        self._ready["policies"].set()
        self._report_ready("policies")

    async def _await_ready(self) -> None:
        essential = [name for name, child in self._children.items() if child.spec.essential]
        try:
            async with asyncio.timeout(START_TIMEOUT):
                await self._wait_for([*essential, *STEPS])
        except TimeoutError as error:
            late = [name for name in (*essential, *STEPS) if not self._ready[name].is_set()]
            what = ", ".join(late)
            raise ProcessFailedError(
                f"Not ready after {START_TIMEOUT:.0f} s: {what}. The logs are in {self._layout.logs}."
            ) from error
        await self._wait_for(self._children)
        self._complete = True
        self._write_state()
        self._tell({"up": round(time.time() - self._started_at, 2)})

    async def _wait_for(self, names: Iterable[str]) -> None:
        for name in names:
            await self._ready[name].wait()

    async def _guard(self, step: Awaitable[None]) -> None:
        """A step that fails takes the cluster down in order, rather than cancelling everything at once."""
        try:
            await step
        except LocalClusterError as error:
            self._fail(error)
        except Exception as error:
            with suppress(OSError):
                traceback.print_exc()  # for those who mend it
            self._fail(LocalClusterError(f"Something unexpected: {type(error).__name__}: {error}"))

    def _fail(self, error: LocalClusterError) -> None:
        if self._failure is None:
            self._failure = error
            self._stopping.set()

    async def _stop_children(self) -> None:
        for stage in StopStage:
            async with asyncio.TaskGroup() as group:
                for child in self._children.values():
                    if child.spec.stage == stage:
                        group.create_task(child.stop())

    def _on_change(self, child: Child) -> None:
        name = child.spec.name
        if child.ready:
            self._report_ready(name)
        if child.restarts > self._deaths[name]:
            self._deaths[name] = child.restarts
            self._on_death(child)
        self._write_state()

    def _report_ready(self, name: str) -> None:
        if name not in self._reported:
            self._reported.add(name)
            self._tell({"ready": name, "seconds": round(time.time() - self._started_at, 2)})

    def _on_death(self, child: Child) -> None:
        spec = child.spec
        self._reported.discard(spec.name)
        if spec.essential and not child.became_ready.is_set() and child.restarts >= MAX_DEATHS_AT_START:
            self._fail(
                ProcessFailedError(
                    f"{spec.name} died {child.restarts} times before it was ready (exit code {child.last_exit}). "
                    f"The end of {spec.log_file}:\n{tail(spec.log_file)}"
                )
            )
        else:
            delay = spec.backoff.delay(child.deaths_in_a_row)
            self._tell({"died": spec.name, "exit": child.last_exit, "delay": delay})

    def _tell(self, event: dict[str, Any]) -> None:
        with suppress(OSError):
            self._report(event)

    def _write_state(self) -> None:
        known = self._forget_rewrite()
        try:
            write_state(self._layout.state, self._state())
        except OSError as error:
            if not known:
                self._tell({"unwritten": str(error)})
            self._rewrite = asyncio.get_running_loop().call_later(REWRITE_SECONDS, self._write_state)

    def _forget_rewrite(self) -> bool:
        """Whether the last state could not be written; nobody writes it any more."""
        handle, self._rewrite = self._rewrite, None
        if handle is not None:
            handle.cancel()
        return handle is not None

    def _state(self) -> ClusterState:
        return ClusterState(
            kubeconfig=str(self._layout.kubeconfig),
            nats_url=self._plan.nats_url,
            state_dir=str(self._layout.root),
            supervisor_pid=os.getpid(),
            supervisor_started_at=read_start(os.getpid()),
            complete=self._complete,
            processes=tuple(_process_state(child) for child in self._children.values()),
            page_url=self._plan.page_url,
        )


def _process_state(child: Child) -> ProcessState:
    return ProcessState(
        name=child.spec.name,
        pid=child.pid,
        port=child.spec.port,
        ready=child.ready,
        restarts=child.restarts,
        log_file=str(child.spec.log_file),
        started_at=child.started_at,
    )


async def supervise(layout: Layout, report: Report) -> None:
    """Run the plan stored in the state directory, whose lock this process holds, until SIGTERM, SIGINT
    or the end of its terminal.

    Raises LocalClusterError when the start failed.
    """
    supervisor = Supervisor(layout, read_plan(layout), report)
    loop = asyncio.get_running_loop()
    for number in ending_signals():
        loop.add_signal_handler(number, supervisor.request_stop)
    await supervisor.run()


def main() -> int:
    """Entry point of the detached supervisor; exit code 1 and a last {"failed"} line when the start failed."""
    parser = argparse.ArgumentParser(prog="kubechain-supervisor")
    parser.add_argument("--state-dir", type=Path, required=True)
    parser.add_argument("--lock-fd", type=int, required=True)
    parser.add_argument("--notify-fd", type=int)
    arguments = parser.parse_args()
    report = _reporter(arguments.notify_fd)
    try:
        with keep_lock(arguments.lock_fd):
            asyncio.run(supervise(Layout.at(arguments.state_dir), report))
    except LocalClusterError as error:
        report({"failed": str(error)})
        return 1
    return 0


def _reporter(notify_fd: int | None) -> Report:
    """Reports go to our own log, and to the ``up`` that started us as long as it listens."""

    def report(event: dict[str, Any]) -> None:
        line = json.dumps(event)
        with suppress(OSError):
            print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)
        if notify_fd is not None:
            with suppress(OSError):
                os.write(notify_fd, line.encode() + b"\n")

    return report


if __name__ == "__main__":
    sys.exit(main())
