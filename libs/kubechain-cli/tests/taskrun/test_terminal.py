"""What a terminal, a pipe and the API server get to see of a run."""

from __future__ import annotations

import io
from pathlib import Path

import psutil
import pytest

from kubechain_cli.localcluster.layout import Layout
from kubechain_cli.localcluster.state import ClusterState, write_state
from kubechain_cli.taskrun.cluster import use_local_cluster
from kubechain_cli.taskrun.naming import build_task, build_task_name, new_suffix
from kubechain_cli.taskrun.steps import Step
from kubechain_cli.taskrun.terminal import new_literal_console, printable, render_step, write_answer


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_steps_are_plain_unwrapped_lines_when_nobody_looks() -> None:
    out = io.StringIO()
    new_literal_console(out).print(render_step(Step("result", "x" * 300 + " [bold]y[/bold] 5"), 1.234))
    assert out.getvalue() == f"   1.23s ← {'x' * 300} [bold]y[/bold] 5\n"


def test_tools_cannot_steer_the_terminal() -> None:
    assert printable("\x1b[2Jred\x07 \u202eok\u200d\n\tend\r") == "[2Jred ok\u200d\n\tend"
    terminal, pipe = Terminal(), io.StringIO()
    write_answer("a\x1bb", terminal)
    write_answer("a\x1bb", pipe)
    assert terminal.getvalue() == "ab\n"
    assert pipe.getvalue() == "a\x1bb\n"


def test_no_character_of_an_answer_is_lost_on_its_way_to_a_file() -> None:
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="replace")
    with pytest.raises(UnicodeEncodeError):
        write_answer("42 \N{CHECK MARK}", file)


def test_task_names_are_valid_however_long_the_agent_is() -> None:
    assert build_task_name("my-assistant", "x7k2pd") == "my-assistant-x7k2pd"
    long = build_task_name("a" * 246 + ".bcdefg", new_suffix())
    assert len(long) <= 253
    assert ".-" not in long
    assert len(new_suffix()) == 6


def test_the_task_asks_for_no_more_than_was_said() -> None:
    wire = build_task("ns", "t", "a", "hi", None).to_wire()
    assert wire["spec"] == {"agentRef": {"name": "a"}, "userMessage": "hi"}
    assert build_task("ns", "t", "a", "hi", 60).spec.ttl_seconds_after_finished == 60


def test_the_running_local_cluster_is_used_unless_the_user_says_otherwise(tmp_path: Path) -> None:
    layout = Layout.at(tmp_path)
    env: dict[str, str] = {}
    use_local_cluster(layout, env)
    assert env == {}
    me = psutil.Process()
    write_state(layout.state, ClusterState("/local", "nats://x", str(tmp_path), me.pid, me.create_time(), True, ()))
    use_local_cluster(layout, env)
    assert env == {"KUBECONFIG": "/local"}
    env = {"KUBECONFIG": "/mine"}
    use_local_cluster(layout, env)
    assert env == {"KUBECONFIG": "/mine"}
