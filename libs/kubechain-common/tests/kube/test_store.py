from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubechain_common.api.v1alpha1 import ALL_KINDS, Resource, Task
from kubechain_common.kube.store import Change, Store, version_of
from kubechain_common.testing.arbitrary import fuzz, resources

KEY = ("ns", "a")


def task(version: int, *, name: str = "a", uid: str = "u1", agent: str = "x", owner: str = "") -> Task:
    owners = [{"apiVersion": "v1", "kind": "K", "name": "o", "uid": owner}] if owner else []
    metadata = {"namespace": "ns", "name": name, "uid": uid, "resourceVersion": str(version), "ownerReferences": owners}
    return Task.model_validate({"metadata": metadata, "spec": {"agentRef": {"name": agent}, "userMessage": "m"}})


def kinds(changes: list[Change[Task]]) -> list[str]:
    return [change.kind for change in changes]


def test_an_object_is_added_then_modified_then_deleted() -> None:
    store: Store[Task] = Store(Task)
    assert kinds(store.upsert(task(1))) == ["added"]
    (change,) = store.upsert(task(2))
    assert change.kind == "modified"
    assert change.old is not None
    assert change.old.metadata.resource_version == "1"
    assert kinds(store.delete(KEY, 3)) == ["deleted"]
    assert store.get(KEY) is None
    assert store.list() == []


@pytest.mark.parametrize("version", [4, 5])
def test_what_is_not_newer_is_ignored(version: int) -> None:
    store: Store[Task] = Store(Task)
    store.upsert(task(5))
    assert store.upsert(task(version)) == []


def test_a_late_answer_to_a_write_does_not_bring_back_the_dead() -> None:
    store: Store[Task] = Store(Task)
    store.upsert(task(1))
    store.delete(KEY, 3)
    assert store.upsert(task(2)) == []
    assert store.get(KEY) is None


def test_a_late_deletion_leaves_the_re_created_object_alone() -> None:
    store: Store[Task] = Store(Task)
    store.upsert(task(1))
    assert kinds(store.upsert(task(5, uid="u2"))) == ["deleted", "added"]
    assert store.delete(KEY, 3) == []
    assert store.get(KEY) is not None


def test_a_deletion_heard_of_first_counts_too() -> None:
    store: Store[Task] = Store(Task)
    assert store.delete(KEY, 3) == []
    assert store.upsert(task(2)) == []


def test_indexes_follow_the_object() -> None:
    store: Store[Task] = Store(Task, {"agent": lambda t: [t.spec.agent_ref.name]})
    store.upsert(task(1, agent="x", owner="o1"))
    store.upsert(task(2, name="b", agent="x"))
    assert [t.name for t in store.by_index("agent", "x")] == ["a", "b"]
    store.upsert(task(3, agent="y", owner="o2"))
    assert [t.name for t in store.by_index("agent", "x")] == ["b"]
    assert [t.name for t in store.by_index("agent", "y")] == ["a"]
    assert store.by_index("owner", "o1") == []
    assert [t.name for t in store.by_index("owner", "o2")] == ["a"]
    store.delete(KEY, 4)
    assert store.by_index("agent", "y") == []


def test_unknown_index_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        Store[Task](Task).by_index("nope", "x")


def test_a_failing_indexer_leaves_the_store_as_it_was() -> None:
    def index(obj: Task) -> list[str]:
        if obj.spec.agent_ref.name == "bad":
            raise ValueError
        return ["all"]

    store: Store[Task] = Store(Task, {"i": index})
    store.upsert(task(1))
    with pytest.raises(ValueError):  # noqa: PT011
        store.upsert(task(2, agent="bad"))
    assert [t.metadata.resource_version for t in store.by_index("i", "all")] == ["1"]


def test_a_list_reveals_missed_deletions_but_not_of_what_is_newer_than_the_list() -> None:
    store: Store[Task] = Store(Task)
    for name, version in (("a", 1), ("b", 2), ("c", 9)):
        store.upsert(task(version, name=name, uid=name))
    changes = store.prune({("ns", "b")}, 5)
    assert [(c.kind, c.obj.name) for c in changes] == [("deleted", "a")]
    assert sorted(t.name for t in store.list()) == ["b", "c"]


def test_clear_reports_every_object_and_forgets_the_dead() -> None:
    store: Store[Task] = Store(Task)
    store.upsert(task(8))
    store.upsert(task(9, name="b"))
    store.delete(("ns", "b"), 10)
    assert [(c.kind, c.obj.name) for c in store.clear()] == [("deleted", "a")]
    assert kinds(store.upsert(task(1, name="b"))) == ["added"]


@dataclass(frozen=True)
class Step:
    """One event of the object's true history, and how late the answer to that write arrives."""

    kind: Literal["put", "delete"]
    delay: int


STEPS = st.lists(st.builds(Step, st.sampled_from(["put", "put", "delete"]), st.integers(0, 5)), max_size=20)


@given(steps=STEPS)
def test_watch_and_own_writes_converge_in_whatever_order_they_arrive(steps: list[Step]) -> None:
    store: Store[Task] = Store(Task, {"all": lambda _: ["all"]})
    late: list[tuple[int, Task]] = []
    alive: Task | None = None
    life = 0
    for version, step in enumerate(steps, start=1):
        for due, answer in [entry for entry in late if entry[0] <= version]:
            late.remove((due, answer))
            store.upsert(answer)
        if step.kind == "delete":
            if alive is None:
                continue
            alive, life = None, life + 1
            store.delete(KEY, version)
        else:
            alive = task(version, uid=f"u{life}")
            late.append((version + step.delay, alive))
            store.upsert(alive)
    for _, answer in late:
        store.upsert(answer)
    stored = store.get(KEY)
    assert stored == alive
    assert store.by_index("all", "all") == ([alive] if alive else [])


def test_a_replacement_is_for_the_same_version_only() -> None:
    store: Store[Task] = Store(Task)
    old, new = task(1), task(2)
    store.upsert(new)
    store.replace(old)
    assert store.get(new.key) is new
    thin = new.model_copy()
    store.replace(thin)
    assert store.get(new.key) is thin
    store.delete(new.key, 3)
    store.replace(thin)
    assert store.get(new.key) is None


def test_a_packed_object_reads_the_same_and_changes_as_any_other() -> None:
    store: Store[Task] = Store(Task, {"agent": lambda t: [t.spec.agent_ref.name]})
    first, second = task(1), task(2)
    store.upsert(first)
    store.pack(first.key, 1)
    assert store.get(first.key) == first
    assert store.list() == [first]
    assert store.by_index("agent", first.spec.agent_ref.name) == [first]
    assert store.upsert(second) == [Change("modified", first, second)]
    store.pack(second.key, 2)
    assert store.delete(second.key, 3) == [Change("deleted", second, None)]
    assert store.list() == []


def test_an_object_that_changed_meanwhile_is_not_packed() -> None:
    store: Store[Task] = Store(Task)
    store.upsert(task(1))
    newer = task(2)
    store.upsert(newer)
    store.pack(newer.key, 1)
    assert store.get(newer.key) is newer
    store.pack(("nowhere", "nothing"), 1)


@pytest.mark.parametrize("kind", ALL_KINDS)
@fuzz
@given(data=st.data())
def test_packing_loses_nothing(kind: type[Resource], data: st.DataObject) -> None:
    obj = data.draw(resources(kind))
    store: Store[Resource] = Store(kind)
    store.upsert(obj)
    store.pack(obj.key, version_of(obj))
    read = store.get(obj.key)
    assert read is not None
    assert read is not obj
    assert read.model_dump(mode="json") == obj.model_dump(mode="json")


def test_what_is_read_one_after_another_is_as_it_is_when_its_turn_comes() -> None:
    store: Store[Task] = Store(Task, {"agent": lambda task: [task.spec.agent_ref.name]})
    for version, name in enumerate(["a", "b", "c"], start=1):
        store.upsert(task(version, name=name))
    store.upsert(task(4, name="d", agent="y"))
    found = store.each_by_index("agent", "x")
    assert next(found).name == "a"
    store.delete(("ns", "b"), 5)
    store.upsert(task(6, name="e"))
    assert [task.name for task in found] == ["c"]
    assert [task.name for task in store.each()] == ["a", "c", "d", "e"]
    with pytest.raises(KeyError):
        store.each_by_index("unknown", "x")
