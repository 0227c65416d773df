"""Process 1 of the node: has mounts, network and processes to itself, all of which end with it.

`unshare --mount --net --pid --fork --kill-child --mount-proc python -m tests.cluster.support.inside NODE.JSON`
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from tests.cluster.support.components import Component, build_components, build_policies
from tests.cluster.support.layout import NodeLayout

from kubechain_common.testing.eventually import eventually

LINK_SECONDS = 20.0
READY_SECONDS = 90.0
# The kubelet insists on these, and they are the machine's, not the node's: it is shown files that hold them already.
TUNABLES = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}
FORWARDING = {"net/ipv4/ip_forward": "1", "net/bridge/bridge-nf-call-iptables": "1"}


def run(*command: str) -> None:
    subprocess.run(command, check=True)


def mount_own_folders(node: NodeLayout) -> None:
    """What the binaries write to fixed paths is kept off the machine."""
    for folder in ("/run", "/var/lib", "/var/log"):
        assert not node.root.is_relative_to(folder), f"{node.root} would be hidden"
        run("mount", "-t", "tmpfs", "node", folder)
    for name, value in TUNABLES.items():
        shown = node.root / name.replace("/", ".")
        shown.write_text(value + "\n")
        run("mount", "--bind", str(shown), f"/proc/sys/{name}")


def join_network(node: NodeLayout) -> None:
    """The machine has made the link once it knew of this process."""

    def has_link() -> bool:
        return subprocess.run(["ip", "link", "show", "eth0"], capture_output=True, check=False).returncode == 0

    eventually(has_link, LINK_SECONDS, what="eth0 of the node")
    run("ip", "link", "set", "lo", "up")
    run("ip", "address", "add", f"{node.node_address}/30", "dev", "eth0")
    run("ip", "link", "set", "eth0", "up")
    run("ip", "route", "add", "default", "via", node.machine_address)
    for name, value in FORWARDING.items():
        Path("/proc/sys", name).write_text(value)


def start(node: NodeLayout, component: Component) -> int:
    with (node.logs / f"{component.name}.log").open("ab") as log:
        process = subprocess.Popen(
            component.argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd=node.root
        )
    if component.ready is not None:
        target = component.ready

        def is_ready() -> bool:
            if process.poll() is not None:
                raise SystemExit(f"{component.name} ended with {process.returncode}")
            return can_connect(target)

        eventually(is_ready, READY_SECONDS, what=component.name)
    return process.pid


def can_connect(target: int | Path) -> bool:
    family = socket.AF_UNIX if isinstance(target, Path) else socket.AF_INET
    address = str(target) if isinstance(target, Path) else ("127.0.0.1", target)
    with socket.socket(family) as probe:
        return probe.connect_ex(address) == 0


def await_node(node: NodeLayout) -> None:
    """Until the kubelet has registered it."""

    def is_there() -> bool:
        command = [node.binary("kubectl"), f"--kubeconfig={node.kubeconfig}", "get", "nodes", "-o", "name"]
        done = subprocess.run(command, capture_output=True, check=False, text=True)
        return bool(done.stdout.strip())

    eventually(is_there, READY_SECONDS, what="the Node object", interval=0.2)


def main(file: Path) -> int:
    node = NodeLayout.read(file)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    # Before a shim of another version that the machine may have.
    os.environ["PATH"] = f"{Path(node.binary('containerd')).parent}{os.pathsep}{os.environ['PATH']}"
    mount_own_folders(node)
    join_network(node)
    pids = {start(node, component): component.name for component in build_components(node)}
    await_node(node)
    pids[start(node, build_policies(node))] = "netpol"
    while True:
        # Also reaps what the pods' shims leave behind.
        pid, status = os.wait()
        if pid in pids:
            print(f"{pids[pid]} ended with status {os.waitstatus_to_exitcode(status)}", flush=True)
            return 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
