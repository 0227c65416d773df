"""Tells that Tasks have ended or were deleted, for whoever keeps something for a Task alone: sessions of its tools.

A word that is lost costs nothing but time: what is kept goes some day anyway.
"""

from __future__ import annotations

import asyncio

from kubechain_common.api.v1alpha1 import Task
from kubechain_common.kube.informer import Change
from kubechain_common.messages.envelope import Envelope
from kubechain_common.messages.topology import task_ended_subject
from kubechain_common.messaging.peers import Peers


class Endings:
    """Tells of ended Tasks while this process leads."""

    def __init__(self, peers: Peers) -> None:
        self._peers = peers
        self._ended: asyncio.Queue[Task] = asyncio.Queue()

    def note(self, change: Change[Task]) -> None:
        """Informer handler."""
        task, before = change.obj, change.old
        ended = change.kind == "deleted" or (task.finished and before is not None and not before.finished)
        if ended and task.status.turn:
            self._ended.put_nowait(task)

    async def run(self) -> None:
        """Tells, until cancelled."""
        while True:
            task = await self._ended.get()
            await self._peers.tell(task_ended_subject(task.namespace, task.uid), Envelope())
