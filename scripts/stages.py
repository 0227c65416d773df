"""Runs the stages of ``make test`` one after another, stops at the first that fails and sums up counts and seconds.

``python scripts/stages.py control-plane integration`` for two of them. Stages that wait a lot run at the same time.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent

CLUSTERS = 4
"""At most so many whole products side by side: each takes a gigabyte and a half."""

TOGETHER = frozenset({"chaos", "containers", "cluster"})
"""A third of their time they wait: for engines, kubelets and the deaths of processes."""

Command = tuple[str, ...]

margin: ContextVar[str] = ContextVar("margin", default="")
"""Before each line of a stage that is not the only one to print."""


@dataclass(frozen=True)
class Outcome:
    """How a stage ended: whether all was well, and the count to print."""

    passed: bool
    count: str


def build_lint_commands() -> list[Command]:
    members = [path for pattern in ("libs/*", "services/*") for path in sorted(ROOT.glob(pattern))]
    tests = sorted(file for member in members for file in (member / "tests").rglob("*.py"))
    sources = [str(member.relative_to(ROOT) / "src") for member in members]
    return [
        ("ruff", "format", "--check", "."),
        ("ruff", "check", "."),
        ("mypy", "scripts", "tests", "benchmarks", *sources),
        *(("mypy", *batch) for batch in batch_by_name(tests)),
        ("lint-imports", "--no-cache"),
        ("python", "-m", "kubechain_common.crdgen", "crds", "--check"),
        ("python", "-m", "kubechain_common.policies", "deploy/kustomize/policies", "--check"),
        ("python", "-m", "kubechain_common.policies.rbac", "deploy/kustomize/base", "--check"),
        ("python", "-m", "scripts.release", "--check"),
        ("python", "-m", "kubechain_common.policies.rbac.docs", "docs/rbac.md", "--check"),
        ("python", "-m", "kubechain_llm_gateway.llms.provider_docs", "docs/providers.md", "--check"),
        ("python", "-m", "scripts.settings_page", "docs/settings.md", "--check"),
        ("python", "-m", "scripts.metrics_page", "docs/observability.md", "--check"),
        ("python", "-m", "kubechain_common.messages.nats_config", "deploy/kustomize/base/nats/users.conf", "--check"),
    ]


def batch_by_name(files: Sequence[Path]) -> list[list[str]]:
    """The files, relative to the root, in as few batches as it takes for none to hold two of one name.

    The members' tests are no packages, so two conftest.py are one module to mypy.
    """
    batches: list[dict[str, str]] = []
    for file in files:
        batch = next((batch for batch in batches if file.name not in batch), None)
        if batch is None:
            batches.append(batch := {})
        batch[file.name] = str(file.relative_to(ROOT))
    return [list(batch.values()) for batch in batches]


def run_lint() -> Outcome:
    commands = build_lint_commands()
    for number, command in enumerate(commands):
        print(f"$ {shorten(command)}", flush=True)
        if run(command) != 0:
            return Outcome(False, f"{number} of {len(commands)} checks passed, `{command[0]}` failed")
    return Outcome(True, f"{len(commands)} checks passed")


def shorten(command: Command, shown: int = 6) -> str:
    """The command for the eye: a long list of files is cut."""
    more = len(command) - shown
    return " ".join(command[:shown]) + (f" ... ({more} more)" if more > 0 else "")


def run_pytest(*selection: str) -> Outcome:
    return run_and_count("pytest", "-q", *selection)


def run_side_by_side(*selection: str) -> Outcome:
    """A pytest process per core; each takes whole files, and starts what the tests of its files stand on."""
    return run_pytest("-n", "auto", "--dist", "loadfile", *selection)


def run_unit() -> Outcome:
    alone = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "tests").glob("test_*.py"))
    return run_side_by_side("libs", "services", *alone, "-m", "not integration and not e2e")


def run_model() -> Outcome:
    """The controllers against a model of the API server and JetStream: by itself, because unit tests are to be fast."""
    return run_side_by_side("tests/model")


def run_integration() -> Outcome:
    return run_side_by_side("libs", "services", "tests/integration", "-m", "integration")


def run_e2e() -> Outcome:
    # In the order of the conftest: by itself xdist begins with the files that have most tests, not the longest ones.
    return run_side_by_side("--no-loadscope-reorder", "--maxprocesses", str(CLUSTERS), "tests/e2e", "-m", "e2e")


def run_chaos() -> Outcome:
    return run_pytest("tests/chaos", "-m", "chaos")


def run_beside_engine(*selection: str) -> Outcome:
    """The engine's own part is in the time of the stage: it is started by whoever comes first, and the images built."""
    return run_and_count("python", "-m", "scripts.engine", "pytest", "-q", *selection)


def run_containers() -> Outcome:
    return run_beside_engine("tests/containers", "-m", "containers")


def run_cluster() -> Outcome:
    return run_beside_engine("tests/cluster", "-m", "cluster")


def run_build(name: str) -> Outcome:
    """Before the tests that stand on it, because a test has no time to wait for a build."""
    return run_and_count("python", "-m", "scripts.builds", name)


STAGES: dict[str, Callable[[], Outcome]] = {
    "lint": run_lint,
    "unit": run_unit,
    "model": run_model,
    "control-plane": lambda: run_build("control-plane"),
    "integration": run_integration,
    "e2e": run_e2e,
    "node": lambda: run_build("node"),
    "images": lambda: run_build("images"),
    "chaos": run_chaos,
    "containers": run_containers,
    "cluster": run_cluster,
}


def run(command: Command) -> int:
    return subprocess.run([str(BIN / command[0]), *command[1:]], cwd=ROOT, check=False).returncode


def run_and_count(*command: str) -> Outcome:
    """What the command's last line counts."""
    code, summary = run_and_read_last_line(command)
    return Outcome(code == 0, summary)


def run_and_read_last_line(command: Command) -> tuple[int, str]:
    """(exit code, the words of pytest's last line); passes everything through as it comes."""
    last = ""
    with subprocess.Popen(
        [str(BIN / command[0]), *command[1:]], cwd=ROOT, stdout=subprocess.PIPE, text=True, errors="replace"
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(margin.get() + line, end="", flush=True)
            last = line.strip() or last
    counts = re.search(r"(?:\d+ (?:passed|failed|errors?|skipped|deselected|xfailed)(?:, )?)+", last)
    return process.returncode, counts[0].rstrip(", ") if counts else last


def group_stages(names: Sequence[str]) -> list[list[str]]:
    """The stages in their order; neighbours of which both are in TOGETHER share a group."""
    groups: list[list[str]] = []
    for name in names:
        if groups and {groups[-1][-1], name} <= TOGETHER:
            groups[-1].append(name)
        else:
            groups.append([name])
    return groups


def run_group(names: Sequence[str]) -> list[tuple[str, Outcome, float]]:
    """(name, outcome, seconds) of each, all at the same time."""

    def run_stage(name: str) -> tuple[str, Outcome, float]:
        if len(names) > 1:
            margin.set(f"{name:>{max(map(len, names))}} | ")
        started = time.monotonic()
        return name, STAGES[name](), time.monotonic() - started

    with ThreadPoolExecutor(len(names)) as threads:
        return list(threads.map(run_stage, names))


def main(names: Sequence[str]) -> int:
    unknown = [name for name in names if name not in STAGES]
    if unknown or not names:
        print(f"stages: name one or more of {', '.join(STAGES)}; got {' '.join(unknown) or 'none'}", file=sys.stderr)
        return 2
    # The tests start hundreds of Python processes, and compiling what they import is half of what a start costs.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    done: list[tuple[str, Outcome, float]] = []
    for group in group_stages(names):
        print(f"\n== {' and '.join(group)}", flush=True)
        done += run_group(group)
        if not all(outcome.passed for _, outcome, _ in done):
            break
    lines = [
        f"{'ok    ' if o.passed else 'FAILED'} {name:<13} {seconds:7.1f} s  {o.count}" for name, o, seconds in done
    ]
    failed = [name for name, outcome, _ in done if not outcome.passed]
    if failed:
        left = list(names[len(done) :])
        lines.append(f"stopped at {' and '.join(failed)}" + (f", not run: {', '.join(left)}" if left else ""))
    print("\n" + "\n".join(lines), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
