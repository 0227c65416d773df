"""What the Task's reconciler remembers between its steps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from kubechain_common.api.names import turn_key
from kubechain_common.api.turn_calls import child_names
from kubechain_common.api.v1alpha1 import Task, TaskRunToolCall
from kubechain_common.api.v1alpha1.conversation import Message, TokenUsage
from kubechain_common.kube.controller import Result
from kubechain_common.kube.errors import (
    AlreadyExistsError,
    ForbiddenError,
    InvalidError,
    NotFoundError,
    TooLargeError,
)
from kubechain_common.kube.write_activity import WriteActivity
from kubechain_common.messages import LLMResult, ObjectRef
from kubechain_common.messaging.errors import BusUnavailableError
from kubechain_common.runtime.inbox import Inbox
from kubechain_common.testing.builders import build_agent, build_call, build_llm, build_mcp_server, build_task
from kubechain_task_controller.core.offload import WINDOW_MESSAGES
from kubechain_task_controller.drafts import Drafts
from kubechain_task_controller.task_reconciler import TaskReconciler
from kubechain_task_controller.watched import Watched


class Dispatcher:
    """Hears of another deletion, once, while it takes the first request back."""

    def __init__(self) -> None:
        self.meanwhile: Any = None
        self.withdrawn: list[str] = []
        self.forgotten: list[str] = []
        self.away = False
        self.published: dict[str, str] = {}
        self.sure: list[bool] = []
        self.leads = True
        self.last: Any = None

    async def withdraw(self, unit: str, *subjects: str) -> None:
        if self.meanwhile is not None:
            meanwhile, self.meanwhile = self.meanwhile, None
            meanwhile()
        if self.away:
            raise BusUnavailableError("down")
        self.withdrawn.append(unit)

    async def publish(self, unit: str, message: Any, *, subject: str, new_since: Any, **how: Any) -> None:
        if self.away:
            raise BusUnavailableError("down")
        self.published[unit] = subject
        self.last = message
        self.sure.append(new_since is not None)

    def subject_of(self, unit: str) -> str | None:
        return self.published.get(unit)

    def forget(self, unit: str) -> None:
        self.published.pop(unit, None)
        self.forgotten.append(unit)


class ApiServer:
    """Has one Task, or none, and tells nobody of Events; takes no texts, or no long windows, if it is told to."""

    def __init__(
        self, live: Task | None, *, refusal: Exception | None = None, stores: bool = False, takes: int = 100
    ) -> None:
        self.live = live
        self.refusal = refusal
        self.stores = stores
        self.takes = takes
        self.told: list[tuple[str, str]] = []
        self.written: list[tuple[str | None, int]] = []
        self.forbidden: list[str] = []

    async def get(self, kind: type[Task], namespace: str, name: str) -> Task:
        if self.live is None:
            raise NotFoundError("gone")
        return self.live

    async def request(self, method: str, path: str, **how: Any) -> dict[str, Any]:
        if self.refusal is not None:
            raise self.refusal
        assert self.stores
        return {}

    async def update_status(self, obj: Task, status: dict[str, Any]) -> Task:
        if len(status.get("contextWindow", ())) > self.takes:
            raise TooLargeError("etcdserver: request is too large")
        version = str(int(obj.metadata.resource_version) + 1)
        metadata = {**obj.metadata.to_wire(), "resourceVersion": version}
        self.live = Task.model_validate({**obj.to_wire(), "metadata": metadata, "status": status})
        self.written.append((self.live.status.phase, self.live.status.turn))
        return self.live

    async def forbid(self, key: str) -> bool:
        self.forbidden.append(key)
        return True

    def event(self, obj: Any, kind: str, reason: str, message: str) -> None:
        self.told.append((reason, message))


def build_reconciler(
    dispatcher: Dispatcher,
    kube: ApiServer | None = None,
    inbox: Inbox[LLMResult] | None = None,
    drafts: Drafts | None = None,
) -> TaskReconciler:
    watched = Watched.build(cast("Any", None), "")
    inbox = inbox or Inbox(lambda result: result.task, lambda ref: None)
    api, unused = cast("Any", kube), cast("Any", None)
    drafts = drafts or Drafts(WriteActivity(), lambda key: None)
    return TaskReconciler(
        api, watched, cast("Any", dispatcher), api, inbox, api, unused, drafts, lambda: dispatcher.leads
    )


async def test_a_deletion_that_is_heard_of_while_another_is_dealt_with_is_not_lost() -> None:
    first, second = build_task(), build_task()
    second.metadata.uid = "uid-second"
    dispatcher = Dispatcher()
    reconciler = build_reconciler(dispatcher)
    reconciler.handle_deleted(first)
    dispatcher.meanwhile = lambda: reconciler.handle_deleted(second)
    await reconciler.reconcile(first.key)
    assert dispatcher.withdrawn == [turn_key(first.uid, 1), turn_key(second.uid, 1)]


async def test_a_deletion_is_kept_until_its_request_was_taken_back() -> None:
    deleted = build_task()
    dispatcher = Dispatcher()
    reconciler = build_reconciler(dispatcher)
    reconciler.handle_deleted(deleted)
    dispatcher.away = True
    with pytest.raises(BusUnavailableError):
        await reconciler.reconcile(deleted.key)
    dispatcher.away = False
    for _ in range(2):
        await reconciler.reconcile(deleted.key)
    assert dispatcher.withdrawn == [turn_key(deleted.uid, 1)]


def at_turn(turn: int, version: int) -> Task:
    status = {"phase": "SendContextWindowToLLM", "turn": turn}
    return build_task(status=status, metadata={"resourceVersion": str(version)})


@pytest.mark.parametrize(
    ("live", "kept", "known"),
    [(at_turn(5, 20), True, 5), (at_turn(4, 20), True, 4), (at_turn(3, 10), False, 3), (None, False, 3)],
    ids=["our copy is behind", "it may be next", "nobody asked for it", "the Task is gone"],
)
async def test_a_result_of_a_later_turn_is_kept_only_if_the_live_task_may_have_asked_for_it(
    live: Task | None, kept: bool, known: int
) -> None:
    inbox: Inbox[LLMResult] = Inbox(lambda result: result.task, lambda ref: ref.key)
    reconciler = build_reconciler(Dispatcher(), ApiServer(live), inbox)
    ours = at_turn(3, 10)
    reconciler._watched.tasks.observe(ours)
    result = LLMResult(task=ObjectRef.of(ours), turn=5, outcome="Message")
    async with asyncio.TaskGroup() as group:
        handling = group.create_task(inbox.take(result))
        await asyncio.sleep(0)
        assert await reconciler.reconcile(ours.key) == Result(requeue_after=0.0)
        parked = inbox.first(ours.uid)
        handling.cancel()
    assert (parked is not None) is kept
    task = reconciler._watched.tasks.get(*ours.key)
    assert task is not None
    assert task.status.turn == known


def begin_task(dispatcher: Dispatcher, api: ApiServer) -> tuple[Task, TaskReconciler, Inbox[LLMResult]]:
    """A new Task, and all that it needs."""
    inbox: Inbox[LLMResult] = Inbox(lambda result: result.task, lambda ref: ref.key)
    reconciler = build_reconciler(dispatcher, api, inbox)
    reconciler._watched.agents.observe(build_agent())
    reconciler._watched.llms.observe(build_llm())
    task = build_task()
    reconciler._watched.tasks.observe(task)
    return task, reconciler, inbox


async def test_an_agent_that_says_more_than_there_is_is_looked_at_again_soon() -> None:
    task, dispatcher = build_task(), Dispatcher()
    reconciler = build_reconciler(dispatcher, ApiServer(task))
    watched = reconciler._watched
    watched.tasks.observe(task)
    watched.agents.observe(build_agent(mcpServers=[{"name": "fetch"}]))
    watched.llms.observe(build_llm())
    assert await reconciler.reconcile(task.key) == Result(requeue_after=0.5)
    assert dispatcher.published == {}
    watched.servers.observe(build_mcp_server())
    await reconciler.reconcile(task.key)
    assert list(dispatcher.published) == [turn_key(task.uid, 1)]


@asynccontextmanager
async def answered(inbox: Inbox[LLMResult], task: Task, turn: int, content: str = "hello") -> AsyncIterator[None]:
    """The model's answer to this turn is there."""
    message = Message(role="assistant", content=content)
    result = LLMResult(task=ObjectRef.of(task), turn=turn, outcome="Message", message=message, usage=TokenUsage())
    async with asyncio.TaskGroup() as group:
        handling = group.create_task(inbox.take(result))
        await asyncio.sleep(0)
        yield
        handling.cancel()


async def test_a_turn_whose_answer_comes_soon_is_written_with_it() -> None:
    api, dispatcher = ApiServer(None), Dispatcher()
    task, reconciler, inbox = begin_task(dispatcher, api)
    await reconciler.reconcile(task.key)
    assert api.written == []
    assert list(dispatcher.published) == [turn_key(task.uid, 1)]
    assert dispatcher.sure == [True]
    async with answered(inbox, task, 1):
        await reconciler.reconcile(task.key)
        assert inbox.first(task.uid) is None
    assert api.written == [("FinalAnswer", 1)]
    assert api.live is not None
    assert api.live.status.start_time is not None


async def test_a_turn_whose_answer_takes_its_time_is_written_when_its_draft_is_due() -> None:
    api, dispatcher = ApiServer(None), Dispatcher()
    task, reconciler, inbox = begin_task(dispatcher, api)
    await reconciler.reconcile(task.key)
    reconciler._drafts._due.add(task.uid)
    await reconciler.reconcile(task.key)
    await reconciler.reconcile(task.key)
    assert api.written == [("SendContextWindowToLLM", 1)]
    assert dispatcher.sure == [True]
    async with answered(inbox, task, 1):
        await reconciler.reconcile(task.key)
    assert api.written[1:] == [("FinalAnswer", 1)]


async def test_what_an_earlier_leader_may_have_asked_is_written_first_and_looked_for() -> None:
    api, dispatcher = ApiServer(None), Dispatcher()
    task, reconciler, _ = begin_task(dispatcher, api)
    reconciler._drafts.doubt(task.key)
    await reconciler.reconcile(task.key)
    assert api.written == [("SendContextWindowToLLM", 1)]
    assert dispatcher.sure == [False]
    assert not reconciler._drafts.is_doubtful(task)


async def test_who_may_have_lost_its_lease_begins_no_turn() -> None:
    """The next leader may have asked for it, and holds that as a draft, too."""
    api, dispatcher = ApiServer(None), Dispatcher()
    task, reconciler, _ = begin_task(dispatcher, api)
    dispatcher.leads = False
    assert await reconciler.reconcile(task.key) == Result(requeue_after=1.0)
    assert (api.written, dispatcher.published, api.told) == ([], {}, [])
    dispatcher.leads = True
    await reconciler.reconcile(task.key)
    assert dispatcher.sure == [True]


async def test_an_answer_to_what_an_earlier_leader_asked_is_taken() -> None:
    api, dispatcher = ApiServer(None), Dispatcher()
    task, reconciler, inbox = begin_task(dispatcher, api)
    api.live = task
    async with answered(inbox, task, 1):
        await reconciler.reconcile(task.key)
        await reconciler.reconcile(task.key)
        assert inbox.first(task.uid) is None
    assert api.written == [("SendContextWindowToLLM", 1), ("FinalAnswer", 1)]
    assert dispatcher.sure == [False]


async def test_an_answer_waits_for_the_calls_before_it_to_be_heard_of() -> None:
    """An earlier leader asked; this one has not heard that the calls have ended."""
    api, dispatcher = ApiServer(None), Dispatcher()
    _, reconciler, inbox = begin_task(dispatcher, api)
    task, calls = waiting_for_calls(2)
    task.metadata.resource_version = "5"
    reconciler._watched.tasks.observe(task)
    for name in child_names(task, 1, 2):
        reconciler._watched.calls.observe(build_call(name, task=task, metadata={"resourceVersion": "1"}))
    async with answered(inbox, task, 2):
        await reconciler.reconcile(task.key)
        assert inbox.first(task.uid) is not None
        for call in calls:
            call.metadata.resource_version = "6"
            reconciler._watched.calls.observe(call)
        for _ in range(2):
            await reconciler.reconcile(task.key)
        assert inbox.first(task.uid) is None
    assert api.written == [("SendContextWindowToLLM", 2), ("FinalAnswer", 2)]
    assert dispatcher.sure == [False]


async def test_a_due_draft_that_is_refused_keeps_nothing_from_going_on() -> None:
    """The Task says why it ends, and takes its request back."""
    api, dispatcher = ApiServer(None, takes=1), Dispatcher()
    task, reconciler, _ = begin_task(dispatcher, api)
    api.live = task
    await reconciler.reconcile(task.key)
    reconciler._drafts._due.add(task.uid)
    for _ in range(2):
        await reconciler.reconcile(task.key)
    assert api.written == [("Failed", 0)]
    assert dispatcher.withdrawn == [turn_key(task.uid, 1)]


async def test_an_answer_whose_text_can_not_be_stored_for_a_while_is_kept() -> None:
    api, dispatcher = ApiServer(None, refusal=ForbiddenError("exceeded quota")), Dispatcher()
    task, reconciler, inbox = begin_task(dispatcher, api)
    api.live = task
    await reconciler.reconcile(task.key)
    async with answered(inbox, task, 1, "x" * 300_000):
        for _ in range(3):
            await reconciler.reconcile(task.key)
        assert inbox.first(task.uid) is not None
        api.refusal, api.stores = None, True
        await reconciler.reconcile(task.key)
        assert inbox.first(task.uid) is None
    assert api.written[-1] == ("FinalAnswer", 1)


async def test_a_task_that_is_deleted_while_its_turn_begins_leaves_no_draft() -> None:
    api, dispatcher = ApiServer(None), Dispatcher()
    task, reconciler, _ = begin_task(dispatcher, api)
    long = build_task(userMessage="x" * 200_000, metadata={"resourceVersion": "9"})
    reconciler._watched.tasks.observe(long)

    async def request(method: str, path: str, **how: Any) -> dict[str, Any]:
        reconciler.handle_deleted(long)
        reconciler._watched.tasks._store.delete(long.key, 10)
        return {}

    api.request = request  # type: ignore[method-assign]
    await reconciler.reconcile(task.key)
    assert reconciler._drafts._held == {}


async def test_a_task_that_nobody_has_asked_for_is_cancelled_without_the_bus() -> None:
    dispatcher = Dispatcher()
    task, reconciler, _ = begin_task(dispatcher, api := ApiServer(None))
    reconciler._watched.tasks.observe(build_task(cancel=True, metadata={"resourceVersion": "9"}))
    dispatcher.away = True
    await reconciler.reconcile(task.key)
    assert api.written == [("Failed", 0)]


async def test_a_cancelled_task_takes_back_what_an_earlier_leader_may_have_asked() -> None:
    dispatcher = Dispatcher()
    task, reconciler, _ = begin_task(dispatcher, ApiServer(None))
    cancelled = build_task(cancel=True, status={"phase": "Pending"}, metadata={"resourceVersion": "9"})
    reconciler._watched.tasks.observe(cancelled)
    reconciler._drafts.doubt(task.key)
    await reconciler.reconcile(task.key)
    assert dispatcher.withdrawn == [turn_key(task.uid, 1)]


async def test_a_turn_that_the_bus_did_not_take_is_written_before_the_next_attempt() -> None:
    api, dispatcher = ApiServer(None), Dispatcher()
    task, reconciler, _ = begin_task(dispatcher, api)
    dispatcher.away = True
    for _ in range(2):
        with pytest.raises(BusUnavailableError):
            await reconciler.reconcile(task.key)
    assert api.written[0] == ("SendContextWindowToLLM", 1)
    dispatcher.away = False
    await reconciler.reconcile(task.key)
    assert dispatcher.sure == [False], "one of the attempts may have reached the bus"


def test_an_answer_is_priced_by_whoever_gave_it() -> None:
    reconciler = build_reconciler(Dispatcher())
    own = build_llm(prices={"inputPerMillion": "1", "outputPerMillion": "1"})
    spare = build_llm(name="spare", prices={"inputPerMillion": "2", "outputPerMillion": "2"})
    free = build_llm(name="free")
    for llm in (own, spare, free):
        reconciler._watched.llms.observe(llm)
    by_itself = LLMResult(task=ObjectRef.of(build_task()), turn=1, outcome="Message")
    by_spare = by_itself.model_copy(update={"answered_by": ObjectRef.of(spare)})
    by_free = by_itself.model_copy(update={"answered_by": ObjectRef.of(free)})
    assert reconciler._snapshots.find_prices(own, by_itself) == own.spec.prices
    assert reconciler._snapshots.find_prices(own, by_spare) == spare.spec.prices
    assert reconciler._snapshots.find_prices(own, by_free) == own.spec.prices, "an estimate is better than nothing"
    assert reconciler._snapshots.find_prices(None, by_itself) is None


def test_an_answer_is_priced_by_the_llm_that_was_asked_whatever_the_agent_names_now() -> None:
    reconciler = build_reconciler(Dispatcher())
    asked = build_llm(prices={"inputPerMillion": "1", "outputPerMillion": "1"})
    now_named = build_llm(name="other", prices={"inputPerMillion": "2", "outputPerMillion": "2"})
    free = build_llm(name="free")
    for llm in (asked, now_named, free):
        reconciler._watched.llms.observe(llm)
    result = LLMResult(task=ObjectRef.of(build_task()), turn=1, outcome="Message", llm=ObjectRef.of(asked))
    gone = ObjectRef(namespace="default", name="gone", uid="uid-gone")
    assert reconciler._snapshots.find_prices(None, result) == asked.spec.prices, "the Agent is away"
    assert reconciler._snapshots.find_prices(now_named, result) == asked.spec.prices
    assert reconciler._snapshots.find_prices(now_named, result.model_copy(update={"llm": ObjectRef.of(free)})) is None
    assert (
        reconciler._snapshots.find_prices(now_named, result.model_copy(update={"llm": gone})) == now_named.spec.prices
    )
    by_free = result.model_copy(update={"answered_by": ObjectRef.of(free)})
    assert reconciler._snapshots.find_prices(now_named, by_free) == asked.spec.prices


def waiting_for_calls(count: int, **spec: Any) -> tuple[Task, list[TaskRunToolCall]]:
    """A Task in its first turn, and its calls, which have all ended."""
    calls = [{"id": f"call_{i}", "function": {"name": "t", "arguments": "{}"}} for i in range(count)]
    window = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "u"},
        {"role": "assistant", "content": "", "toolCalls": calls},
    ]
    status = {"phase": "ToolCallsPending", "turn": 1, "messageCount": 3, "contextWindow": window}
    task = build_task(status=status, **spec)
    done = {"phase": "Succeeded", "result": "r"}
    names = child_names(task, 1, count)
    return task, [build_call(n, task=task, status=done, toolCallId=f"call_{i}") for i, n in enumerate(names)]


@pytest.mark.parametrize(
    "api",
    [
        ApiServer(None, refusal=ForbiddenError("exceeded quota")),
        ApiServer(None, refusal=InvalidError("no such thing")),
        ApiServer(None, refusal=AlreadyExistsError("there is one")),
        ApiServer(None, stores=True, takes=3),
    ],
    ids=["not allowed", "refused", "name taken", "too large"],
)
async def test_a_task_ends_as_it_was_told_to_even_if_the_last_results_can_not_be_kept(
    api: ApiServer,
) -> None:
    task, calls = waiting_for_calls(40, cancel=True)
    reconciler = build_reconciler(Dispatcher(), api)
    reconciler._watched.tasks.observe(task)
    for call in calls:
        reconciler._watched.calls.observe(call)
    await reconciler.reconcile(task.key)
    assert api.live is not None
    assert (api.live.status.phase, api.live.status.message_count) == ("Failed", 3)
    assert api.live.status.conditions[-1].reason == "Cancelled"
    assert [reason for reason, _ in api.told] == ["TaskCancelled"]


async def test_a_task_that_is_cancelled_keeps_the_results_that_are_there() -> None:
    task, calls = waiting_for_calls(40, cancel=True)
    api = ApiServer(None, stores=True)
    reconciler = build_reconciler(Dispatcher(), api)
    reconciler._watched.tasks.observe(task)
    for call in calls:
        reconciler._watched.calls.observe(call)
    await reconciler.reconcile(task.key)
    assert api.live is not None
    assert (api.live.status.phase, api.live.status.message_count) == ("Failed", 43)
    assert len(api.live.status.context_window) <= WINDOW_MESSAGES
    assert api.live.status.context_window[-1].content == "r"


class Occupied(ApiServer):
    """Holds somebody's object under the name of every call."""

    def __init__(self, live: Task, owner: Task) -> None:
        super().__init__(live, stores=True)
        self.owner = owner

    async def create(self, obj: TaskRunToolCall) -> TaskRunToolCall:
        raise AlreadyExistsError("there is one")

    async def get(self, kind: type[Any], namespace: str, name: str) -> Any:
        if kind is Task:
            return self.live
        return build_call(name, task=self.owner)


@pytest.mark.parametrize("foreign", [True, False])
async def test_a_call_whose_name_somebody_else_has_is_told_to_the_model(foreign: bool) -> None:
    task, _ = waiting_for_calls(1)
    owner = build_task("hello", metadata={"uid": "uid-of-another"}) if foreign else task
    api, dispatcher = Occupied(task, owner), Dispatcher()
    reconciler = build_reconciler(dispatcher, api)
    reconciler._watched.tasks.observe(task)
    reconciler._watched.agents.observe(build_agent())
    reconciler._watched.llms.observe(build_llm())
    [name] = child_names(task, 1, 1)
    again = await reconciler.reconcile(task.key)
    assert (again is not None and again.requeue_after == 0.0) is foreign
    assert bool(reconciler._watched.calls.get("default", name)) is not foreign
    if foreign:
        await reconciler.reconcile(task.key)
        said = dispatcher.last.messages[-1]
        assert said.content == f'Error: TaskRunToolCall "{name}" exists already and is not the Task\'s'


async def test_a_task_into_which_nothing_can_be_written_is_told_of_in_an_event() -> None:
    """Its spec is as large as etcd takes: there is no room for a status, not even for one that says so."""
    api = ApiServer(None, takes=-1)
    task, reconciler, inbox = begin_task(Dispatcher(), api)
    api.live = task
    await reconciler.reconcile(task.key)
    api.told.clear()
    async with answered(inbox, task, 1):
        await reconciler.reconcile(task.key)
        with pytest.raises(TooLargeError):
            await reconciler.reconcile(task.key)
        assert api.written == []
        [(reason, message)] = api.told
    assert reason == "ContextWindowTooLarge"
    assert message.startswith("Nothing can be written into the Task's status: The context window does not")


async def test_an_answer_that_can_not_be_stored_yet_is_kept_and_not_asked_for_again() -> None:
    inbox: Inbox[LLMResult] = Inbox(lambda result: result.task, lambda ref: ref.key)
    dispatcher = Dispatcher()
    reconciler = build_reconciler(
        dispatcher, ApiServer(None, refusal=ForbiddenError("exceeded quota: configmaps")), inbox
    )
    task = build_task(status={"phase": "SendContextWindowToLLM", "turn": 1, "status": "Ready", "ready": True})
    reconciler._watched.tasks.observe(task)
    message = Message(role="assistant", content="x" * 300_000)
    result = LLMResult(task=ObjectRef.of(task), turn=1, outcome="Message", message=message, usage=TokenUsage())
    async with asyncio.TaskGroup() as group:
        handling = group.create_task(inbox.take(result))
        await asyncio.sleep(0)
        again = await reconciler.reconcile(task.key)
        assert again is not None
        assert again.requeue_after == 10.0
        assert inbox.first(task.uid) is not None
        assert dispatcher.forgotten == []
        handling.cancel()
    known = reconciler._watched.tasks.get(*task.key)
    assert known is not None
    assert known.status.status_detail.startswith("Waiting to store the conversation")
