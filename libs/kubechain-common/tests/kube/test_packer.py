from __future__ import annotations

import asyncio

from kubechain_common.kube.packer import Packer
from kubechain_common.kube.store import Key
from kubechain_common.testing.eventually import eventually

A, B = ("ns", "a"), ("ns", "b")


class Packed:
    """A store that only notes what it is asked to pack."""

    def __init__(self) -> None:
        self.versions = {A: 1, B: 1}
        self.asked: list[tuple[Key, int]] = []

    def version(self, key: Key) -> int:
        return self.versions[key]

    def pack(self, key: Key, version: int) -> None:
        self.asked.append((key, version))


async def test_what_did_not_change_for_a_while_is_packed_oldest_first() -> None:
    store = Packed()
    packer = Packer(store, 0.01)
    packer.note_change(A)
    with packer.running():
        packer.note_change(B)
        await asyncio.to_thread(eventually, lambda: len(store.asked) == 2, 5)
    assert store.asked == [(A, 1), (B, 1)]


async def test_nothing_is_packed_before_its_time_or_after_the_end() -> None:
    store = Packed()
    packer = Packer(store, 3600)
    with packer.running():
        packer.note_change(A)
    assert store.asked == []
    packer.pack_all()
    assert store.asked == [(A, 1)]


def test_changes_can_be_noted_where_no_loop_runs() -> None:
    Packer(Packed(), 1).note_change(A)


async def test_many_are_packed_in_batches() -> None:
    store = Packed()
    packer = Packer(store, 0.0)
    with packer.running():
        for _ in range(100):
            packer.note_change(A)
        await asyncio.to_thread(eventually, lambda: len(store.asked) == 100, 5)
