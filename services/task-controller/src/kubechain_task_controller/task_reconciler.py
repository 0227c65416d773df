"""Carries out what ``core.task_decision`` decides about a Task.

In this order: what is taken back, texts, status, children, request, events. Nothing is decided here. Each effect is
idempotent, so an error anywhere leaves the rest to the next reconcile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime

from kubechain_common.api.names import execution_key, turn_key
from kubechain_common.api.stored_text import StoredText
from kubechain_common.api.turn_calls import is_owner
from kubechain_common.api.v1alpha1 import Task, TaskRunToolCall
from kubechain_common.api.v1alpha1.task import TaskPhase, TaskStatus
from kubechain_common.kube.client import KubeClient
from kubechain_common.kube.controller import Result
from kubechain_common.kube.errors import (
    AlreadyExistsError,
    ConflictError,
    ForbiddenError,
    InvalidError,
    NotFoundError,
    TooLargeError,
)
from kubechain_common.kube.event_recorder import EventRecorder
from kubechain_common.kube.informer import Key
from kubechain_common.kube.status_writer import write_status
from kubechain_common.kube.text_store import store_text
from kubechain_common.messages import LLMRequest, LLMResult, ObjectRef
from kubechain_common.messages.llm import conversation_of
from kubechain_common.messages.topology import ANY, RESULTS_MAX_IN_FLIGHT, llm_request_subject, llm_result_subject
from kubechain_common.messages.trouble import PREFIX
from kubechain_common.messaging.dispatcher import Dispatcher
from kubechain_common.messaging.errors import MessagingError
from kubechain_common.messaging.started_calls import StartedCalls
from kubechain_common.runtime.bus_trouble import BusTrouble
from kubechain_common.runtime.clock import now
from kubechain_common.runtime.deletions import Deletions
from kubechain_common.runtime.inbox import Inbox, Parked
from kubechain_common.telemetry.logging import get_logger
from kubechain_common.telemetry.tracing import emit_span
from kubechain_task_controller.budget_book import BudgetBook
from kubechain_task_controller.core.ending import awaits_llm
from kubechain_task_controller.core.overflow import build_request_window
from kubechain_task_controller.core.plan import TaskPlan, TaskSnapshot
from kubechain_task_controller.core.response_format import build_response_format
from kubechain_task_controller.core.setback import decide_kept, decide_refused, decide_unstorable
from kubechain_task_controller.core.task_decision import decide_task
from kubechain_task_controller.core.tool_calls import calls_to_forbid
from kubechain_task_controller.drafts import Drafts
from kubechain_task_controller.live_task import find_live, is_there
from kubechain_task_controller.metrics import count_end, count_turn
from kubechain_task_controller.snapshots import Snapshots, span_of_delegation
from kubechain_task_controller.span_attributes import build_agent_attributes
from kubechain_task_controller.watched import Watched

log = get_logger(__name__)

_TEXTS_AT_HAND = 256 * 1024
"""Bytes of texts that a request carries along; beyond that the gateway reads them itself, well below max_payload."""
_UNCERTAIN_DELAY = 1.0
_ROOM_FOR_LATER = RESULTS_MAX_IN_FLIGHT // 2
_NAMESPACE_GOES = "because it is being terminated"
"""The API server's words for a creation in a namespace that is being deleted."""


class _NotStoredError(Exception):
    """A text of the conversation was refused: for good, or until somebody gives a right, or makes room for it."""

    def __init__(self, reason: str, *, for_good: bool) -> None:
        super().__init__(reason)
        self.for_good = for_good


class TaskReconciler:
    """The shell around the pure core; one instance per term of leadership."""

    def __init__(
        self,
        kube: KubeClient,
        watched: Watched,
        dispatcher: Dispatcher,
        started_calls: StartedCalls,
        inbox: Inbox[LLMResult],
        recorder: EventRecorder,
        book: BudgetBook,
        drafts: Drafts,
        leads: Callable[[], bool],
    ) -> None:
        """``leads`` tells whether nobody else can be leading at this moment."""
        self._leads = leads
        self._book = book
        self._snapshots = Snapshots(kube, watched, dispatcher, book)
        self._drafts = drafts
        self._kube = kube
        self._watched = watched
        self._dispatcher = dispatcher
        self._started_calls = started_calls
        self._inbox = inbox
        self._recorder = recorder
        self._refused: dict[str, dict[str, str]] = {}
        self._trouble = BusTrouble()
        self._deletions = Deletions(self._take_back)

    async def reconcile(self, key: Key) -> Result | None:
        """One step of the Task; ``None`` if nothing is left to wait for by time."""
        await self._deletions.settle(key)
        task = self._watched.tasks.get(*key)
        await self._inbox.settle_orphans_of(key, task, self._watched.tasks, self._kube)
        if task is None:
            return None
        try:
            result = await self._take_step(self._drafts.apply(task))
        except MessagingError as error:
            self._drafts.give_up(task)  # people are to see where it stands
            await self._show_trouble(task, error)
            raise
        self._trouble.clear(task.uid)
        return result

    async def _take_step(self, task: Task) -> Result:
        if self._drafts.is_due(task):
            try:
                task = await self._write(task, task.status)
            except InvalidError:
                self._drafts.give_up(task)
                return Result(requeue_after=0.0)
        over = task.finished or task.metadata.deleting
        parked = self._inbox.first(task.uid, lambda result: over or result.turn <= task.status.turn)
        later = self._inbox.first(task.uid) if parked is None else None
        if later is None:
            return await self._step(task, parked)
        self._drafts.doubt(task.key)
        if later.message.turn > task.status.turn + 1:
            await self._look_at_later_turn(task, later)
            return Result(requeue_after=0.0)
        result = await self._step(task, None)
        self._make_room(task, later)
        return result

    def _make_room(self, task: Task, later: Parked[LLMResult]) -> None:
        """Where very many results wait for turns that can not begin, they would keep those of all other Tasks waiting:
        each is let go then, and its turn asked for again. A notice tells of nothing that anybody could see.
        """
        latest = self._watched.tasks.get(*task.key)
        begun = latest is not None and latest.status.turn >= later.message.turn
        if not begun and (later.message.outcome == "Retrying" or self._inbox.count() > _ROOM_FOR_LATER):
            self._drop(task, later)

    async def _step(self, task: Task, parked: Parked[LLMResult] | None) -> Result:
        """Carries out the plan, or, where the API server does not take it, one that asks for less."""
        snapshot = await self._snapshots.take(task, parked.message if parked else None, self._refused.get(task.uid, {}))
        plan = decide_task(snapshot)
        if plan.fresh and not self._leads():  # who leads now may have asked, and need not have written it yet
            return Result(requeue_after=_UNCERTAIN_DELAY)
        if plan.fresh and self._drafts.is_doubtful(task):
            plan = replace(plan, fresh=False, may_wait=False)
        try:
            again = await self._carry_out(snapshot, plan, parked)
        except (InvalidError, _NotStoredError) as error:
            if self._drafts.give_up(task):
                return Result(requeue_after=0.0)
            plan = _decide_less(snapshot, plan, error)
            again = await self._carry_out_less(snapshot, plan, parked)
        if plan.send:
            self._drafts.end_doubt(task)
        return Result(requeue_after=0.0 if again else plan.requeue_after)

    async def _carry_out_less(self, snapshot: TaskSnapshot, plan: TaskPlan, parked: Parked[LLMResult] | None) -> bool:
        """Where not even this is taken, as of a Task that is as large as can be, Events are all that can be said."""
        try:
            return await self._carry_out(snapshot, plan, parked)
        except InvalidError:
            for event in plan.events:
                told = f"Nothing can be written into the Task's status: {event.message}"
                self._recorder.event(snapshot.task, event.type, event.reason, told)
            raise

    async def _look_at_later_turn(self, task: Task, parked: Parked[LLMResult]) -> None:
        """A result of more than one turn ahead: our copy is behind, or etcd went back to an older snapshot.

        A turn is written before the next one is asked for. So where the live Task is not there either, it was so in a
        future that is lost.
        """
        live = await find_live(self._kube, task)
        if live is not None:
            self._watched.tasks.observe(live)
        if live is None or (live.uid == task.uid and live.status.turn + 1 < parked.message.turn):
            where = {"namespace": task.namespace, "task": task.name, "turn": parked.message.turn}
            log.warning("dropping a result of a turn that the task has not begun", **where)
            self._drop(task, parked)

    def _drop(self, task: Task, parked: Parked[LLMResult]) -> None:
        self._dispatcher.forget(turn_key(task.uid, parked.message.turn))
        self._inbox.settle(task.uid, parked)

    async def _show_trouble(self, task: Task, error: MessagingError) -> None:
        trouble = self._trouble.note(task.uid, error)
        latest = self._watched.tasks.get(task.namespace, task.name)
        if trouble is None or latest is None or latest.uid != task.uid:
            return
        plan = decide_kept(latest, trouble)
        if plan.status is not None:
            latest = await write_status(self._kube, self._watched.tasks, latest, plan.status)
        for event in plan.events:
            self._recorder.event(latest, event.type, event.reason, event.message)

    def handle_deleted(self, task: Task) -> None:
        """Notes that the Task was deleted; its reconcile, which is due now, takes back what it has under way."""
        self._refused.pop(task.uid, None)
        if not task.finished:
            self._deletions.add(task)
        self._drafts.forget(task)
        self._trouble.clear(task.uid)

    async def _take_back(self, task: Task) -> None:
        await self._forbid(task.namespace, calls_to_forbid(task, self._watched.calls_of(task)))
        await self._withdraw(task)

    async def _withdraw(self, task: Task) -> None:
        """Takes the Task's request back, wherever it went: the Agent may have had another LLM then."""
        turn = task.asked_turn
        if turn is None:
            return
        agent = self._watched.agents.get(task.namespace, task.spec.agent_ref.name)
        llm = self._watched.llms.get(task.namespace, agent.spec.llm_ref.name) if agent else None
        where = (task.namespace, task.uid, turn)
        probable = [llm_request_subject(llm.uid, *where, conversation_of(build_request_window(task)))] if llm else []
        await self._dispatcher.withdraw(turn_key(task.uid, turn), *probable, llm_request_subject(ANY, *where, ANY))

    async def _carry_out(self, snapshot: TaskSnapshot, plan: TaskPlan, parked: Parked[LLMResult] | None) -> bool:
        """True when the Task should be looked at again at once."""
        before = task = snapshot.task
        began = now()
        doubtful = self._drafts.is_doubtful(task) and self._leads()
        if (plan.withdraw and awaits_llm(task)) or (plan.gives_up and doubtful):
            await self._withdraw(task)
        await self._forbid(task.namespace, plan.forbid)
        await asyncio.gather(*(self._cancel_call(snapshot.children[name]) for name in plan.cancel))
        if plan.delete:
            budget = self._watched.budget_of(task.namespace)
            if budget is not None:
                await self._book.write_down(budget)  # what it used would be known nowhere else
            # As it was judged: the time that it has may have been made longer since.
            version = task.metadata.resource_version
            await self._kube.delete(Task, task.namespace, task.name, uid=task.uid, version=version)
            return False
        if plan.status is not None:
            await self._store_texts(task, plan.stored)
            if plan.may_wait and self._leads() and self._drafts.allows(task) and self._watched.has(task):
                task = self._drafts.put(task, plan.status)
            else:
                task = await self._write(task, plan.status)
        if plan.answered is not None:
            count_turn(task, snapshot.asked_llm.name if snapshot.asked_llm else "", plan.answered)
        more = self._settle(task, plan, parked)
        # Children that are missing later on may have gone because their Task did, of which we have not heard yet.
        if plan.status is not None or not plan.children or await is_there(self._kube, task):
            more |= await self._create_children(task, plan.children)
        if plan.send and snapshot.llm is not None:
            if not plan.fresh:  # it is looked for, and what is found of others taken back: only by who wrote the turn
                task = await self._write(task, task.status)
            await self._send(task, snapshot.llm, snapshot, plan, began)
            more |= task.status.status_detail.startswith(PREFIX)
        for event in plan.events:
            self._recorder.event(task, event.type, event.reason, event.message)
        if task.finished and not before.finished:
            count_end(task)
            self._finish(task)
        return more

    async def _write(self, task: Task, status: TaskStatus) -> Task:
        written = await write_status(self._kube, self._watched.tasks, self._drafts.base_of(task), status)
        self._drafts.settle(task)
        return written

    async def _store_texts(self, task: Task, texts: tuple[StoredText, ...]) -> None:
        owner = task.build_owner_reference()
        for text in texts:
            try:
                await store_text(self._kube, task.namespace, owner, text)
            except (InvalidError, ForbiddenError, AlreadyExistsError) as error:
                raise _NotStoredError(str(error), for_good=isinstance(error, InvalidError)) from error

    def _settle(self, task: Task, plan: TaskPlan, parked: Parked[LLMResult] | None) -> bool:
        if parked is None or not plan.consumed:
            return False
        if parked.message.outcome != "Retrying":
            self._dispatcher.forget(turn_key(task.uid, parked.message.turn))
        return self._inbox.settle(task.uid, parked)

    async def _create_children(self, task: Task, children: tuple[TaskRunToolCall, ...]) -> bool:
        """True when the API server refused one: the next step tells the model."""
        if not children:
            return False
        created = await asyncio.gather(*(self._create_child(task, c) for c in children), return_exceptions=True)
        for outcome in created:
            if isinstance(outcome, BaseException):
                raise outcome
        return not all(created)

    async def _create_child(self, task: Task, child: TaskRunToolCall) -> bool:
        """Creates the call; False when it can not be had."""
        try:
            self._watched.calls.observe(await self._kube.create(child))
        except AlreadyExistsError:
            found = await self._kube.get(TaskRunToolCall, child.namespace, child.name)
            if not is_owner(task, found):
                return self._refuse(
                    task, child, f'TaskRunToolCall "{child.name}" exists already and is not the Task\'s'
                )
            self._watched.calls.observe(found)  # made before a crash, or not yet in the cache
        except (InvalidError, ForbiddenError) as error:  # by the schema, a quota or an admission policy
            if _NAMESPACE_GOES in str(error):
                return True  # so does the Task: its model is not asked about it
            return self._refuse(task, child, str(error))
        return True

    def _refuse(self, task: Task, child: TaskRunToolCall, why: str) -> bool:
        """Notes that there will be no such call; the next step tells the model."""
        self._refused.setdefault(task.uid, {})[child.name] = why
        return False

    async def _forbid(self, namespace: str, names: tuple[str, ...]) -> None:
        """Keeps the calls from being begun; what has begun goes on until it is cancelled."""
        await asyncio.gather(*(self._started_calls.forbid(execution_key(namespace, name)) for name in names))

    async def _cancel_call(self, call: TaskRunToolCall) -> None:
        body = {"metadata": {"uid": call.uid}, "spec": {"cancel": True}}
        try:
            self._watched.calls.observe(await self._kube.patch(TaskRunToolCall, call.namespace, call.name, body))
        except (NotFoundError, ConflictError):
            return  # gone, and another one may have its name: that one is looked at when it is seen

    async def _send(self, task: Task, llm: ObjectRef, snapshot: TaskSnapshot, plan: TaskPlan, began: datetime) -> None:
        turn, messages = task.status.turn, build_request_window(task)
        conversation = conversation_of(messages)
        subject = llm_request_subject(llm.uid, task.namespace, task.uid, turn, conversation)
        before = self._dispatcher.subject_of(turn_key(task.uid, turn))
        if before is not None and before != subject:
            await self._dispatcher.withdraw(turn_key(task.uid, turn))  # the Agent has another LLM now
        request = LLMRequest(
            task=ObjectRef.of(task),
            turn=turn,
            llm=llm,
            conversation=conversation,
            messages=messages,
            texts=_limit(plan.texts),
            tools=snapshot.catalog.definitions(),
            response_format=build_response_format(snapshot.agent) if task.status.summary_keeps is None else None,
        )
        await self._dispatcher.publish(
            turn_key(task.uid, turn),
            request,
            subject=subject,
            result_subject=llm_result_subject(task.namespace, task.uid, turn, conversation),
            trace=task.status.span_context,
            new_since=began if plan.fresh else None,
            anywhere=llm_request_subject(ANY, task.namespace, task.uid, turn, ANY),
        )

    def _finish(self, task: Task) -> None:
        status = task.status
        self._refused.pop(task.uid, None)
        self._drafts.forget(task)
        self._dispatcher.forget(turn_key(task.uid, status.turn))
        if status.span_context is None or status.start_time is None or status.completion_time is None:
            return
        emit_span(
            f"invoke_agent {task.spec.agent_ref.name}",
            status.span_context,
            status.start_time,
            status.completion_time,
            attributes=build_agent_attributes(task),
            error=status.error if status.phase == TaskPhase.FAILED else None,
            parent=span_of_delegation(task),
        )


def _decide_less(snapshot: TaskSnapshot, plan: TaskPlan, error: InvalidError | _NotStoredError) -> TaskPlan:
    """The plan when the API server did not take the status of the last one, or a text of it."""
    if plan.keeps_results:
        return decide_task(replace(snapshot, keeps_results=False))
    if isinstance(error, InvalidError):
        return decide_refused(snapshot, str(error), too_large=isinstance(error, TooLargeError))
    if error.for_good:
        return decide_refused(snapshot, str(error), too_large=True)
    return decide_unstorable(snapshot, str(error))


def _limit(texts: Mapping[str, str]) -> dict[str, str]:
    """The latest texts, as many as a request may carry."""
    room = _TEXTS_AT_HAND
    taken: dict[str, str] = {}
    for key, text in reversed(list(texts.items())):
        room -= len(text.encode())
        if room < 0:
            break
        taken[key] = text
    return taken
