"""What a node needs of the machine it runs on, and what it changes there: a link, three firewall rules, a cgroup.

All of it carries the node's number, and all of it is removed when the node ends; what a killed test left behind is
removed by the next one.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.cluster.support.layout import NodeLayout

PROGRAMS = ("runc", "ip", "iptables", "ipset", "unshare", "mount")
NODES = 64
GONE_SECONDS = 10.0
CGROUPS = Path("/sys/fs/cgroup")
COMMENT = "kubechain-node"
# All pods together are one group beside each process of the machine, the node's own among them: of this weight.
WEIGHTS = {"cpu.shares": "10240", "cpu.weight": "1000"}


def why_not() -> str | None:
    """The reason for which this machine can not run a node, or None."""
    if sys.platform != "linux":
        return "a one-node cluster needs Linux"
    if os.geteuid() != 0:
        return "a one-node cluster needs root"
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        return f"a one-node cluster needs {', '.join(missing)} (Debian: runc iproute2 iptables ipset util-linux)"
    probe = [
        "unshare",
        "--mount",
        "--net",
        "--pid",
        "--fork",
        "--mount-proc",
        "ip",
        "link",
        "add",
        "x",
        "type",
        "bridge",
    ]
    done = subprocess.run(probe, capture_output=True, check=False, text=True)
    return f"no namespaces of our own: {done.stderr.strip()}" if done.returncode else None


@contextmanager
def claimed_number() -> Iterator[int]:
    """A number that no other node of this machine has while the context is entered."""
    for number in range(NODES):
        with Path(f"/tmp/kubechain-node{number}.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            yield number
            return
    raise AssertionError(f"{NODES} nodes run here already")


def connect(node: NodeLayout, pid: int) -> None:
    """Link the network of the process with ours, and let the node go out by our address."""
    _run("ip", "link", "add", node.link, "type", "veth", "peer", "name", "eth0", "netns", str(pid))
    _run("ip", "address", "add", f"{node.machine_address}/30", "dev", node.link)
    _run("ip", "link", "set", node.link, "up")
    for rule in _rules(node):
        _run("iptables", "--wait", *rule)
    # Left on: it may be somebody else's wish by the time we are done.
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")


def disconnect(node: NodeLayout) -> None:
    """Whatever of it is there."""
    subprocess.run(["ip", "link", "delete", node.link], capture_output=True, check=False)
    for rule in _rules(node):
        undo = ["--delete" if word in ("--insert", "--append") else word for word in rule]
        while subprocess.run(["iptables", "--wait", *undo], capture_output=True, check=False).returncode == 0:
            pass


def _rules(node: NodeLayout) -> list[tuple[str, ...]]:
    by_us = ("-m", "comment", "--comment", COMMENT)
    return [
        (
            "--table",
            "nat",
            "--append",
            "POSTROUTING",
            "-s",
            node.subnet,
            "!",
            "-o",
            node.link,
            *by_us,
            "-j",
            "MASQUERADE",
        ),
        ("--table", "filter", "--insert", "FORWARD", "-i", node.link, *by_us, "-j", "ACCEPT"),
        ("--table", "filter", "--insert", "FORWARD", "-o", node.link, *by_us, "-j", "ACCEPT"),
    ]


def make_cgroup(node: NodeLayout) -> None:
    """The kubelet makes its pods' groups below it and wants it to be there."""
    for hierarchy in _hierarchies():
        group = hierarchy / node.cgroup
        group.mkdir(exist_ok=True)
        for file in ("cpuset.cpus", "cpuset.mems"):  # version 1: empty in a new group, and then no process may join
            if (group / file).exists() and not (group / file).read_text().strip():
                (group / file).write_text((hierarchy / file).read_text())
        for file, weight in WEIGHTS.items():
            if (group / file).exists():
                (group / file).write_text(weight)


def remove_cgroup(node: NodeLayout) -> None:
    """Its processes are dead or dying."""
    deadline = time.monotonic() + GONE_SECONDS
    while left := [group for h in _hierarchies() if (group := h / node.cgroup).exists()]:
        for group in left:
            for folder, _, _ in os.walk(group, topdown=False):
                with suppress(OSError):
                    Path(folder).rmdir()
        assert time.monotonic() < deadline, f"processes are left in {left}"


def _hierarchies() -> list[Path]:
    if (CGROUPS / "cgroup.controllers").exists():
        return [CGROUPS]
    return [path for path in CGROUPS.iterdir() if path.is_dir() and not path.is_symlink()]


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, check=False, text=True)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
