"""When a draft is written, and when it is made anew."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from kubechain_common.api.v1alpha1 import Task
from kubechain_common.api.v1alpha1.task import TaskPhase
from kubechain_common.kube.informer import Key
from kubechain_common.kube.write_activity import WriteActivity
from kubechain_common.testing.builders import build_task
from kubechain_task_controller.drafts import HOLD, HOLD_AT_MOST, Drafts


class Busy(WriteActivity):
    """The writes of this process, as the test tells them."""

    def __init__(self) -> None:
        super().__init__()
        self.busy = False

    def quiet_for(self) -> float:
        return 0.0 if self.busy else 60.0


def put(drafts: Drafts, task: Task) -> Task:
    update = {"phase": TaskPhase.SEND_CONTEXT_WINDOW_TO_LLM, "turn": 1}
    return drafts.put(task, task.status.model_copy(update=update))


async def test_a_draft_is_due_after_a_moment_without_writes_and_in_the_end_in_any_case() -> None:
    woken: list[Key] = []
    activity = Busy()
    drafts = Drafts(activity, woken.append)
    task = build_task()
    put(drafts, task)
    put_at = asyncio.get_running_loop().time()
    assert 0 < drafts._look(put_at) <= HOLD
    activity.busy = True
    assert drafts._look(put_at + HOLD) > 0
    assert woken == []
    assert drafts._look(put_at + HOLD_AT_MOST) == 0
    assert woken == [task.key]
    assert drafts.is_due(task)


async def test_drafts_are_due_in_their_order() -> None:
    woken: list[Key] = []
    drafts = Drafts(Busy(), woken.append)
    first, second = build_task("first"), build_task("second")
    put(drafts, first)
    before = asyncio.get_running_loop().time()
    put(drafts, second)
    drafts._held[second.uid] = replace(drafts._held[second.uid], since=before + 0.1)
    assert 0 < drafts._look(before + HOLD) <= HOLD
    assert woken == [first.key]


async def test_a_draft_that_is_written_is_not_due_any_more() -> None:
    woken: list[Key] = []
    drafts = Drafts(Busy(), woken.append)
    task = build_task()
    put(drafts, task)
    drafts.settle(task)
    assert drafts._look(asyncio.get_running_loop().time() + HOLD_AT_MOST) == 0
    assert woken == []
    assert drafts.apply(task) is task


async def test_nothing_is_looked_at_while_there_is_no_draft() -> None:
    woken = asyncio.Event()
    drafts = Drafts(Busy(), lambda key: woken.set())
    task = build_task()
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        running = group.create_task(drafts.run())
        put(drafts, task)
        await woken.wait()
        await asyncio.sleep(0)
        assert not drafts._filled.is_set()
        running.cancel()


async def test_a_draft_stays_when_somebody_changes_the_spec() -> None:
    drafts = Drafts(Busy(), lambda key: None)
    task = build_task(metadata={"resourceVersion": "1"})
    put(drafts, task)
    edited = build_task(cancel=True, metadata={"resourceVersion": "2"})
    ahead = drafts.apply(edited)
    assert (ahead.spec.cancel, ahead.status.turn, ahead.metadata.resource_version) == (True, 1, "2")
    assert drafts.base_of(ahead) is edited


async def test_a_draft_of_another_status_is_made_anew_and_its_request_looked_for() -> None:
    drafts = Drafts(Busy(), lambda key: None)
    task = build_task(metadata={"resourceVersion": "1"})
    put(drafts, task)
    moved_on = build_task(metadata={"resourceVersion": "2"}, status={"phase": "Pending"})
    assert drafts.apply(moved_on) is moved_on
    assert drafts.base_of(moved_on) is moved_on
    assert drafts.is_doubtful(moved_on)
    drafts.end_doubt(moved_on)
    assert not drafts.is_doubtful(moved_on)


async def test_a_task_whose_draft_was_given_up_is_written_step_by_step_until_it_ends() -> None:
    drafts = Drafts(Busy(), lambda key: None)
    task = build_task()
    assert not drafts.give_up(task)
    assert not drafts.is_doubtful(task), "nothing was sent"
    assert not drafts.allows(task)
    drafts.forget(task)
    assert drafts.allows(task)
    put(drafts, task)
    assert drafts.give_up(task)
    assert drafts.is_doubtful(task)
