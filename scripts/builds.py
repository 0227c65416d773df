"""Builds what tests stand on, so that no test waits for it: ``python -m scripts.builds control-plane | node | images``.

Each takes minutes once and a moment afterwards. What can not be used on this machine is not built, and says so; the
tests that need it are skipped with the same reason.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from scripts.engine import NoEngineError, running_engine
from scripts.images.build import Plan, build_images, read_version
from tests.cluster.support.binaries import Lines, get_node_binaries
from tests.cluster.support.machine import why_not

from kubechain_cli.localcluster.binaries import get_control_plane


def build_control_plane() -> str:
    return f"{len(get_control_plane(Lines('control plane')).paths)} programs"


def build_node() -> str:
    if "KUBECHAIN_TEST_CLUSTER" in os.environ or "KUBECHAIN_TEST_KUBECONFIG" in os.environ:
        return "not needed: the tests have a cluster of another kind"
    if reason := why_not():
        return f"not built: {reason}"
    return f"{len(get_node_binaries())} programs"


def build_all_images() -> str:
    try:
        with running_engine():
            return f"{len(build_images(Plan(read_version())))} images"
    except NoEngineError as reason:
        return f"not built: {reason}"


BUILDS: dict[str, Callable[[], str]] = {
    "control-plane": build_control_plane,
    "node": build_node,
    "images": build_all_images,
}


if __name__ == "__main__":
    print(BUILDS[sys.argv[1]]())
