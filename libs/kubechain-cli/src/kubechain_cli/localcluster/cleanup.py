"""Deleting what a cluster left on disk: exactly the files of its layout, nothing else that may lie beside them."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

from kubechain_cli.localcluster.layout import Layout
from kubechain_cli.localcluster.lock import hold_lock
from kubechain_cli.localcluster.plan import nats_config


def delete_data(layout: Layout) -> None:
    """Delete etcd's and NATS' data and the logs. Raises AlreadyRunningError when the cluster runs."""
    if not layout.root.is_dir():
        return
    with hold_lock(layout.lock):
        _delete_directories(layout.data, layout.logs)


def purge_state(layout: Layout) -> None:
    """Delete everything of the cluster, and the directory itself if nothing else is in it.

    Raises AlreadyRunningError when the cluster runs.
    """
    if not layout.root.is_dir():
        return
    with hold_lock(layout.lock):
        _delete_directories(layout.data, layout.logs, layout.pki)
        for file in (layout.kubeconfig, layout.ports, layout.plan, layout.state, nats_config(layout), layout.lock):
            file.unlink(missing_ok=True)
    with suppress(OSError):
        layout.root.rmdir()


def _delete_directories(*directories: Path) -> None:
    for directory in directories:
        shutil.rmtree(directory, ignore_errors=True)
