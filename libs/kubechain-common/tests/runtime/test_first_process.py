"""The first process of a container."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

NAMESPACE = ("unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child")
TOLD_TO_END = """
import os, signal, time
{imported}
if os.fork() == 0:
    os.kill(1, signal.SIGTERM)
    os._exit(0)
os.wait()
time.sleep({seconds})
"""


def run_first(imported: str, seconds: float) -> int:
    """The exit code of a process 1 that gets SIGTERM while it starts."""
    code = TOLD_TO_END.format(imported=imported, seconds=seconds)
    return subprocess.run([*NAMESPACE, sys.executable, "-c", code], check=False, timeout=30).returncode


@pytest.mark.skipif(
    shutil.which("unshare") is None or subprocess.run([*NAMESPACE, "true"], check=False).returncode != 0,
    reason="no PID namespaces of our own here",
)
def test_it_ends_when_it_is_told_to_while_it_still_imports() -> None:
    assert run_first("", 0.1) == 0, "the kernel ends it after all, and this is no longer needed"
    assert run_first("import kubechain_common", 20) == 128 + 15
