"""What the cluster commands show, in terminals of several widths."""

from __future__ import annotations

import io

import pytest

from kubechain_cli.console import PipeConsole, print_cluster
from kubechain_cli.localcluster.state import ClusterState, ProcessState

PROCESSES = (
    ProcessState("kube-controller-manager", 1234567, 45678, True, 3, "/l", None),
    ProcessState("task-controller", None, None, False, 12, "/l", None),
)


@pytest.mark.parametrize("width", [20, 40, 200])
def test_no_terminal_is_too_narrow_for_pids_and_ports(width: int) -> None:
    out = io.StringIO()
    console = PipeConsole(file=out, width=width, highlight=False, soft_wrap=True)
    print_cluster(console, ClusterState("/k", "nats://127.0.0.1:1", "/s", 1, None, True, PROCESSES))
    assert out.getvalue().splitlines()[:3] == [
        "NAME                     READY  PID      PORT   RESTARTS",
        "kube-controller-manager  true   1234567  45678  3       ",
        "task-controller          false  -        -      12      ",
    ]
