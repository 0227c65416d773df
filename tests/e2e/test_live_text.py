"""`kubechain run --follow` shows the text while it is written; the answer is the same as without anybody looking."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import pytest
from tests.e2e.support import manifests
from tests.e2e.support.cluster import BIN
from tests.e2e.support.scripts import calls, in_turns
from tests.e2e.support.workspace import Workspace

from kubechain_cli.scripted_llm import ChatMessage, Reply, Script, ToolSpec
from kubechain_common.testing.eventually import eventually

pytestmark = pytest.mark.e2e

ANSWER = "The answer to that is well known to everybody here: it is 42, naturally."
CALL = calls(("tenant__whoami", {}), text="Let me see.")


def hurry(reply: Reply) -> None:
    """Let the rest be written at once: before each piece the server looks how long to pause."""
    object.__setattr__(reply, "pause", 0.0)


class Follower:
    """A run whose standard error is read as it comes."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self.seen = ""

    def read_until(self, words: str, seconds: float = 30.0) -> None:
        assert self._process.stderr is not None
        end = time.monotonic() + seconds
        while words not in self.seen:
            assert time.monotonic() < end, f"{words!r} is not in {self.seen!r}"
            piece = os.read(self._process.stderr.fileno(), 4096)
            assert piece, f"the run ended without {words!r}: {self.seen!r}"
            self.seen += piece.decode()

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def finish(self) -> str:
        """The answer; the rest of standard error is in ``seen`` then."""
        out, rest = self._process.communicate(timeout=60)
        self.seen += rest.decode()
        assert self._process.returncode == 0, self.seen
        return out.decode()


def without_steps(seen: str) -> str:
    """What was seen of texts: a step may come in their midst, on a line of its own."""
    return re.sub(r"\n? *\d+\.\d\ds [^\n]*\n", "", seen)


def is_asking(workspace: Workspace) -> bool:
    (task,) = workspace.kubectl.list("task")
    return bool(task["status"]["phase"] == "SendContextWindowToLLM")


@contextmanager
def follow(workspace: Workspace, message: str, **environment: str) -> Iterator[Follower]:
    command = [str(BIN / "kubechain"), "run", "my-assistant", message, "--follow", "-n", workspace.namespace]
    env = {**workspace.cluster.env, **environment}
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            yield Follower(process)
        finally:
            if process.poll() is None:
                process.kill()


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_text_is_shown_before_the_answer_is_complete(workspace: Workspace, provider: str) -> None:
    workspace.kubectl.apply(
        manifests.secret("tenant", token=workspace.new_secret("tenant")),
        manifests.own_server(
            "tenant", "tenant_server.py", env=[manifests.from_secret("TENANT_TOKEN", "tenant", "token")]
        ),
    )
    slowly = Reply(ANSWER, pause=0.5)
    llm = workspace.serve_llm(in_turns(replace(CALL, pause=0.3), slowly))
    llm_object = manifests.llm(llm.url if provider == "openai" else llm.anthropic_url)
    llm_object["spec"]["provider"] = provider
    workspace.kubectl.apply(
        manifests.secret("openai", OPENAI_API_KEY=workspace.key), llm_object, manifests.agent(servers=["tenant"])
    )
    workspace.kubectl.wait("agent/my-assistant", timeout=60)
    with follow(workspace, "what is the answer?") as run:
        run.read_until("The answer")
        assert run.running
        eventually(lambda: is_asking(workspace), 10, what="the phase in which the model is asked")
        assert "naturally" not in run.seen
        hurry(slowly)
        assert run.finish() == f"{ANSWER}\n"
    assert run.seen.index("Let me") < run.seen.index("tenant__whoami {}") < run.seen.index("The answer")
    assert f"Let me see.{ANSWER}" in without_steps(run.seen)
    (task,) = workspace.kubectl.list("task")
    assert task["status"]["output"] == ANSWER


def test_text_that_broke_off_begins_anew(workspace: Workspace) -> None:
    workspace.apply_agent(workspace.serve_llm(break_off_once(ANSWER)))
    with follow(workspace, "what is the answer?") as run:
        run.read_until("the text begins anew (attempt 2)")
        assert run.finish() == f"{ANSWER}\n"
    before, after = run.seen.split("the text begins anew (attempt 2)")
    assert "The answer to" in before
    assert ANSWER in without_steps(after)


def break_off_once(answer: str) -> Script:
    asked: list[int] = []

    def script(messages: Sequence[ChatMessage], tools: Sequence[ToolSpec]) -> Reply:
        asked.append(1)
        return Reply(answer, pause=0.3, cut_after=12 if len(asked) == 1 else None)

    return script


def test_without_nats_the_run_goes_on_and_says_so_once(workspace: Workspace) -> None:
    slowly = Reply(ANSWER, pause=0.5)
    workspace.apply_agent(workspace.serve_llm(in_turns(slowly)))
    with follow(workspace, "what is the answer?", KUBECHAIN_NATS_URL="nats://127.0.0.1:1") as run:
        run.read_until("NATS cannot be reached")
        hurry(slowly)
        assert run.finish() == f"{ANSWER}\n"
    assert run.seen.count("the text is shown once it is complete: NATS cannot be reached") == 1
    assert "final answer after 1 turn" in run.seen
    assert ANSWER not in run.seen
