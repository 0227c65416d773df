"""Starting a module of ours with the Python that runs this one."""

from __future__ import annotations

import sys


def build_module_command(module: str, *arguments: str) -> list[str]:
    """Without the current directory on the path, as ``kubechain`` itself has it: a csv.py there is none of ours."""
    return [sys.executable, "-P", "-m", module, *arguments]
