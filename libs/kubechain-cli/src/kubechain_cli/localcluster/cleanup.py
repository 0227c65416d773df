"""Deleting what a cluster left on disk: exactly the files of its layout, nothing else that may lie beside them."""

from __future__ import annotations

import shutil
from contextlib import suppress

from kubechain_cli.localcluster.layout import Layout
from kubechain_cli.localcluster.lock import hold_lock
from kubechain_cli.localcluster.plan import nats_config


def delete_data(layout: Layout) -> None:
    """Delete etcd's and NATS' data and the logs. Raises AlreadyRunningError when the cluster runs."""
    if not layout.root.is_dir():
        return
    with hold_lock(layout.lock):
        for directory in (layout.data, layout.logs):
            shutil.rmtree(directory, ignore_errors=True)


def purge_state(layout: Layout) -> None:
    """Delete everything of the cluster, and the directory itself if nothing else is in it."""
    delete_data(layout)
    shutil.rmtree(layout.pki, ignore_errors=True)
    for file in (layout.kubeconfig, layout.ports, layout.plan, layout.state, nats_config(layout), layout.lock):
        file.unlink(missing_ok=True)
    with suppress(OSError):
        layout.root.rmdir()
