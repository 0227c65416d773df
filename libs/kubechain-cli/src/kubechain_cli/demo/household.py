"""What the demo needs around it: a local cluster in a state directory of its own, and servers as child processes.

The servers are noted in the state directory, so that a kept demo can be stopped by a later command, and every demo
ends by the same code. They get sessions of their own: Ctrl-C is for the demo, which then stops them in order.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from kubechain_cli.demo.errors import SetupError
from kubechain_cli.localcluster.files import tail, write_atomic
from kubechain_cli.localcluster.identity import StartMark, is_alive, read_start
from kubechain_cli.localcluster.layout import Layout, default_state_dir
from kubechain_cli.own_modules import build_module_command

STOP_SECONDS = 5.0
# The demo's keys reach the services through a Secret alone; what is in the environment must not help.
_PRIVATE = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "KUBECONFIG")
# Some programs read the one spelling first, some the other.
_NO_PROXY = ("no_proxy", "NO_PROXY")
_THIS_MACHINE = "127.0.0.1,localhost"


def kept_state_dir(env: Mapping[str, str]) -> Path:
    """Where a demo started with --keep lives: beside the state directory of ``kubechain up``."""
    usual = default_state_dir(env)
    return usual.with_name(f"{usual.name}-demo")


def build_environment(env: Mapping[str, str], layout: Layout) -> dict[str, str]:
    """The environment of everything the demo starts; tools installed beside Python come first on PATH.

    Whatever proxy there is, servers of this machine are asked without it: the page is fetched by a tool that would not.
    """
    tools = str(Path(sys.executable).parent)
    kept = {name: value for name, value in env.items() if name not in _PRIVATE}
    path = os.pathsep.join(filter(None, (tools, env.get("PATH"))))
    kept |= exempt_this_machine(env)
    return {**kept, "PATH": path, "KUBECHAIN_HOME": str(layout.root), "KUBECONFIG": str(layout.kubeconfig)}


def exempt_this_machine(env: Mapping[str, str]) -> dict[str, str]:
    """What the user has exempted from the proxies, and this machine; * exempts all and stands alone."""
    small, large = (env.get(name, "") for name in _NO_PROXY)
    exempted = zip(_NO_PROXY, (small or large, large or small), strict=True)
    return {name: given if given == "*" else ",".join(filter(None, (given, _THIS_MACHINE))) for name, given in exempted}


@dataclass(frozen=True)
class Household:
    """The processes of one demo."""

    layout: Layout
    env: Mapping[str, str]
    _started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def _servers_file(self) -> Path:
        return self.layout.root / "demo-servers.json"

    def start_cluster(self) -> None:
        """Run ``kubechain up``, which shows its own progress. Raises ``SetupError``."""
        if self._run_cli("up", "--detach") != 0:
            raise SetupError(
                "The local cluster did not come up; what it said is above. `kubechain doctor` may know more."
            )

    def start_server(self, module: str, *args: str) -> dict[str, Any]:
        """Start a server of ours and return what it says of itself once it listens. Raises ``SetupError``."""
        log = self.layout.log_file(module.rpartition(".")[2])
        with log.open("ab") as errors:
            process = subprocess.Popen(
                build_module_command(module, *args),
                stdout=subprocess.PIPE,
                stderr=errors,
                stdin=subprocess.DEVNULL,
                env=dict(self.env),
                start_new_session=True,
            )
        self._started.append(process)
        self._note_server(process.pid)
        assert process.stdout is not None
        line = process.stdout.readline()
        process.stdout.close()
        if not line:
            raise SetupError(f"{module} did not start: {tail(log)}")
        ready: dict[str, Any] = json.loads(line)
        return ready

    def stop(self) -> None:
        """Stop everything and remove the state directory; whatever is gone already is fine."""
        if self.layout.root.exists():
            self._run_cli("down")
            self.stop_servers()
            shutil.rmtree(self.layout.root, ignore_errors=True)

    def stop_servers(self) -> None:
        """End the servers that were started, whichever process started them."""
        servers = [psutil.Process(pid) for pid, started_at in self._read_servers() if is_alive(pid, started_at)]
        for server in servers:
            server.terminate()
        _, alive = psutil.wait_procs(servers, timeout=STOP_SECONDS)
        for server in alive:
            server.kill()
        psutil.wait_procs(alive, timeout=STOP_SECONDS)
        for process in self._started:
            process.poll()

    def _run_cli(self, *arguments: str) -> int:
        env = {name: value for name, value in self.env.items() if name != "KUBECONFIG"}
        return subprocess.run(build_module_command("kubechain_cli", *arguments), env=env, check=False).returncode

    def _note_server(self, pid: int) -> None:
        noted = [*self._read_servers(), (pid, read_start(pid))]
        write_atomic(self._servers_file, json.dumps(noted))

    def _read_servers(self) -> list[tuple[int, StartMark | None]]:
        """Pid and mark of the start of each server: a pid that went to somebody else must not be taken for ours."""
        try:
            return [(pid, started_at) for pid, started_at in json.loads(self._servers_file.read_text())]
        except FileNotFoundError:
            return []
