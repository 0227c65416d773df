"""Binaries that the user already has: the folder KUBEBUILDER_ASSETS names, or PATH."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from kubechain_cli.localcluster.sources.pinned import CONTROL_PLANE


def find_control_plane(env: Mapping[str, str] = os.environ) -> tuple[dict[str, Path], str] | None:
    """All three binaries and a word on where they are, or None. KUBEBUILDER_ASSETS comes before PATH.

    Never a mixture of the two, which would run versions together that nobody tried together.
    """
    assets = env.get("KUBEBUILDER_ASSETS")
    for path, source in ((assets, "KUBEBUILDER_ASSETS"), (env.get("PATH"), "PATH")):
        if not path:
            continue
        found = {name: shutil.which(name, path=path) for name in CONTROL_PLANE}
        if all(found.values()):
            return {name: Path(where) for name, where in found.items() if where}, source
    return None
