"""A Kubernetes of one node on this machine, in namespaces of its own: `running_node` starts it and ends all of it."""

from __future__ import annotations

import os
import platform
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from tests.cluster.support import machine
from tests.cluster.support.archives import write_image
from tests.cluster.support.binaries import get_binaries
from tests.cluster.support.keys import write_keys
from tests.cluster.support.layout import DNS_IMAGE, PAUSE_IMAGE, NodeLayout
from tests.e2e.support.cluster import find_kubectl
from tests.e2e.support.kubectl import Kubectl

from kubechain_cli.localcluster.parent_death import die_with_parent
from kubechain_common.testing.eventually import eventually

ROOT = Path(__file__).resolve().parents[3]
RESOLVERS = (Path("/run/systemd/resolve/resolv.conf"), Path("/etc/resolv.conf"))
START_SECONDS = 120.0
STOP_SECONDS = 20.0
IMPORT_SECONDS = 300.0


@dataclass(frozen=True)
class OneNode:
    """The cluster; ``pid`` is its process 1 as the machine sees it."""

    layout: NodeLayout
    pid: int

    @property
    def kubeconfig(self) -> Path:
        return self.layout.kubeconfig

    @property
    def machine_address(self) -> str:
        """Where pods reach what this machine serves."""
        return self.layout.machine_address

    def load_images(self, archive: Path) -> None:
        """Every image of an archive of `docker save`."""
        done = self.run(
            self.layout.binary("ctr"),
            f"--address={self.layout.containerd_socket}",
            "--namespace=k8s.io",
            "images",
            "import",
            "--digests=false",
            str(archive),
        )
        assert done.returncode == 0, f"{archive}: {done.stdout}{done.stderr}"

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command inside the node."""
        enter = ("nsenter", f"--target={self.pid}", "--mount", "--net", "--pid")
        return subprocess.run([*enter, *command], capture_output=True, text=True, check=False, timeout=IMPORT_SECONDS)

    def tail_logs(self, lines: int = 15) -> str:
        """The end of the log of each part, for a failure report."""
        parts = []
        for log in sorted(self.layout.logs.glob("*.log")):
            parts += [f"--- {log}", *log.read_text(errors="replace").splitlines()[-lines:]]
        return "\n".join(parts)


@contextmanager
def running_node(state: Path) -> Iterator[OneNode]:
    """A ready node without DNS; ``state`` is a new folder for all of its files and is removed with it."""
    binaries = {**get_binaries(), "kubectl": Path(find_kubectl())}
    with ExitStack() as stack:
        number = stack.enter_context(machine.claimed_number())
        layout = NodeLayout(str(state), number, {name: str(path) for name, path in binaries.items()})
        clean_machine(layout)
        state.mkdir(mode=0o700, parents=True)
        stack.callback(shutil.rmtree, state, ignore_errors=True)
        stack.callback(clean_machine, layout)
        prepare(layout)
        node = stack.enter_context(started(layout))
        await_ready(node)
        for name, tag in (("pause", PAUSE_IMAGE), ("coredns", DNS_IMAGE)):
            archive = write_image(state / f"{name}.tar", tag, binaries[name], platform.machine())
            node.load_images(archive)
            archive.unlink()
        yield node


def prepare(layout: NodeLayout) -> None:
    """Everything that its processes read, and what the machine has to give."""
    layout.logs.mkdir()
    write_keys(layout)
    layout.write()
    (layout.root / "resolv.conf").write_text(read_resolver())
    machine.make_cgroup(layout)
    if shutil.which("modprobe"):  # not everywhere built in; and where it is, there is nothing to load
        subprocess.run(["modprobe", "--all", "br_netfilter", "overlay"], capture_output=True, check=False)


def read_resolver() -> str:
    """The machine's resolvers that can be reached from elsewhere: a stub on 127.0.0.53 can not."""
    return next(path for path in RESOLVERS if path.exists()).read_text()


def clean_machine(layout: NodeLayout) -> None:
    machine.disconnect(layout)
    machine.remove_cgroup(layout)


@contextmanager
def started(layout: NodeLayout) -> Iterator[OneNode]:
    """Process 1 and all that it starts; with it everything ends, also when we are killed."""
    own = ("--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")
    command = ["unshare", *own, sys.executable, "-m", "tests.cluster.support.inside", str(layout.root / "node.json")]
    environment = {key: value for key, value in os.environ.items() if key != "KUBECONFIG"}
    with (layout.logs / "node.log").open("ab") as log:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=die_with_parent(),
        )
    try:
        pid = eventually(lambda: find_child(process), START_SECONDS, what="process 1 of the node")
        assert pid is not None
        machine.connect(layout, pid)
        yield OneNode(layout, pid)
        assert process.poll() is None, (layout.logs / "node.log").read_text()
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(STOP_SECONDS)


def find_child(process: subprocess.Popen[bytes]) -> int | None:
    assert process.poll() is None, "unshare failed"
    return next((int(child.pid) for child in psutil.Process(process.pid).children()), None)


def await_ready(node: OneNode) -> None:
    kubectl = Kubectl(node.kubeconfig, "default")

    def is_ready() -> bool:
        assert psutil.pid_exists(node.pid), f"the node died:\n{node.tail_logs()}"
        ready = "jsonpath={.items[*].status.conditions[?(@.type=='Ready')].status}"
        shown = kubectl.try_run("get", "nodes", "-o", ready, "--request-timeout=3s")
        return shown.stdout == "True"

    eventually(is_ready, START_SECONDS, what=lambda: f"the node ready\n{node.tail_logs()}", interval=0.2)
