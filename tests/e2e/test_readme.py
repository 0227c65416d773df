"""The README's tutorial works as it is written: its commands are run, its outputs are compared.

Only one thing is added: ``baseUrl`` in the LLM manifests, so that a scripted server answers instead of a provider.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubechain_cli.scripted_llm.scripts import SCRIPTS
from kubechain_cli.scripted_llm.server import ScriptedServer

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```(?P<kind>sh tutorial|text expect)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
MARK = "### step"


def read_steps() -> list[tuple[str, str]]:
    """The tutorial's commands, each with the output that is shown for it (or nothing)."""
    steps: list[tuple[str, str]] = []
    for match in BLOCK.finditer((ROOT / "README.md").read_text(encoding="utf-8")):
        if match["kind"] == "sh tutorial":
            steps.append((match["text"], ""))
        else:
            steps[-1] = (steps[-1][0], match["text"])
    return steps


def with_base_url(commands: str, server: ScriptedServer) -> str:
    commands = commands.replace("    model: gpt-4o\n", f"    model: gpt-4o\n    baseUrl: {server.url}\n")
    model = "    model: claude-3-5-sonnet-latest\n"
    return commands.replace(model, f"{model}    baseUrl: {server.anthropic_url}\n")


def squeeze(text: str) -> str:
    return "\n".join(re.sub(r"\s+", " ", line).strip() for line in text.splitlines() if line.strip())


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    own = {
        "KUBECHAIN_HOME": str(tmp_path / "state"),
        "OPENAI_API_KEY": "sk-tutorial",
        "ANTHROPIC_API_KEY": "sk-ant-tutorial",
    }
    environment = {**os.environ, **own}
    environment.pop("KUBECONFIG", None)
    yield environment
    # Whatever the tutorial left behind after a failure.
    subprocess.run([sys.executable, "-m", "kubechain_cli", "down"], env=environment, check=False, capture_output=True)


@pytest.mark.timeout(300)
async def test_the_tutorial_runs_as_it_is_written(environment: dict[str, str]) -> None:
    steps = read_steps()
    async with ScriptedServer(SCRIPTS["tutorial"]) as server:
        lines = ["set -euo pipefail"]
        for number, (commands, _) in enumerate(steps):
            lines += [f"echo '{MARK} {number}'", with_base_url(commands, server)]
        script = "\n".join(lines)
        done = await asyncio.to_thread(
            subprocess.run,
            ["bash", "-c", script],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stdout
    printed = done.stdout.split(MARK)[1:]
    assert len(printed) == len(steps)
    for (_, expected), output in zip(steps, printed, strict=True):
        assert squeeze(expected) in squeeze(output)
    assert "It is a natural satellite of Earth" in done.stdout
