"""Gathers what ``core.task_decision`` looks at: the Task, and all that its next step depends on."""

from __future__ import annotations

from collections.abc import Mapping

from kubechain_common.api.names import turn_key
from kubechain_common.api.v1alpha1 import LLM, Agent, Task
from kubechain_common.api.v1alpha1.money import LLMPrices
from kubechain_common.api.v1alpha1.status import SpanContext
from kubechain_common.api.v1alpha1.task import TaskPhase
from kubechain_common.kube.client import KubeClient
from kubechain_common.kube.errors import NotFoundError
from kubechain_common.kube.text_cache import TextCache
from kubechain_common.kube.window_reader import ContentLostError, WindowReader
from kubechain_common.messages import LLMResult, ObjectRef
from kubechain_common.messages.llm import UNKNOWN_CONVERSATION, conversation_of
from kubechain_common.messages.topology import llm_request_subject
from kubechain_common.messaging.dispatcher import Dispatcher
from kubechain_common.runtime.clock import now
from kubechain_common.telemetry.tracing import span_context_of
from kubechain_task_controller.budget_book import BudgetBook
from kubechain_task_controller.core.agent_needs import is_complete
from kubechain_task_controller.core.overflow import build_request_window
from kubechain_task_controller.core.plan import TaskSnapshot
from kubechain_task_controller.core.source import Source
from kubechain_task_controller.core.spent import Spent
from kubechain_task_controller.core.tool_catalog import ToolCatalog, build_catalog
from kubechain_task_controller.delegation_tree import DelegationTree
from kubechain_task_controller.live_task import is_there
from kubechain_task_controller.watched import Watched


class Snapshots:
    """Takes snapshots out of the informers; only a Task that another one goes on from is read from the API server."""

    def __init__(self, kube: KubeClient, watched: Watched, dispatcher: Dispatcher, book: BudgetBook) -> None:
        self._kube = kube
        self._watched = watched
        self._dispatcher = dispatcher
        self._book = book
        self._tree = DelegationTree(watched)
        self._reader = WindowReader(kube, TextCache(0))  # a source is read once

    async def take(self, task: Task, result: LLMResult | None, refused: Mapping[str, str]) -> TaskSnapshot:
        """The snapshot for a step of ``task``, with the model's ``result`` and the calls that were ``refused``.

        Raises KubeError.
        """
        source = await self._find_source(task)
        moment = now()  # before the sums, so that they are never taken for those of the period after it
        budget = self._watched.budget_of(task.namespace) if not task.finished else None
        spent_in_namespace = await self._book.find_spent(budget) if budget else Spent()
        # Nothing is waited for from here on: what the Agent has and what its tools are is of one moment.
        agent = self._watched.agents.get(task.namespace, task.spec.agent_ref.name)
        llm = self._watched.llms.get(task.namespace, agent.spec.llm_ref.name) if agent else None
        unit = turn_key(task.uid, task.status.turn)
        asks = task.status.phase == TaskPhase.SEND_CONTEXT_WINDOW_TO_LLM
        conversation = conversation_of(build_request_window(task)) if asks else UNKNOWN_CONVERSATION
        subject = (
            llm_request_subject(llm.uid, task.namespace, task.uid, task.status.turn, conversation) if llm else None
        )
        agent_complete, catalog = self._look_at_needs(agent) if agent else (False, ToolCatalog())
        return TaskSnapshot(
            task=task,
            now=moment,
            agent=agent,
            agent_complete=agent_complete,
            llm=ObjectRef.of(llm) if llm else None,
            prices=llm.spec.prices if llm else None,
            answer_prices=self.find_prices(llm, result) if result is not None else None,
            spent_below=self._tree.spent_below(task) if task.spec.budget else Spent(),
            above=self._tree.find_budgets_above(task),
            namespace_budget=budget,
            spent_in_namespace=spent_in_namespace,
            catalog=catalog,
            children=self._watched.calls_of(task),
            refused=refused,
            result=result,
            conversation=conversation,
            request_on_its_way=subject is not None and self._dispatcher.subject_of(unit) == subject,
            source=source,
            new_span=task.status.span_context or span_context_of(task.uid, span_of_delegation(task)),
        )

    def find_prices(self, llm: LLM | None, result: LLMResult) -> LLMPrices | None:
        """The prices of the fallback that answered, if it has any, else those of the LLM that was asked.

        Nobody knows the prices of an LLM that is gone: those of ``llm``, the Agent's LLM now, are taken.
        """
        other = self._find_llm(result.answered_by)
        if other is not None and other.spec.prices is not None:
            return other.spec.prices
        asked = self._find_llm(result.llm) or llm
        return asked.spec.prices if asked is not None else None

    def _find_llm(self, ref: ObjectRef | None) -> LLM | None:
        return self._watched.llms.get(*ref.key) if ref is not None else None

    def _look_at_needs(self, agent: Agent) -> tuple[bool, ToolCatalog]:
        """Whether the Agent has all that its spec names, and its tools."""
        needs, sub_agents = self._watched.needs_of(agent), self._watched.sub_agents_of(agent)
        return is_complete(needs, sub_agents), build_catalog(agent, needs.servers, needs.channels, sub_agents)

    async def _find_source(self, task: Task) -> Source | None:
        """The Task whose conversation goes on here; whole, because the informer keeps finished Tasks without theirs."""
        origin = task.spec.context_window_from
        if origin is None or task.status.turn > 0:
            return None
        known = self._watched.tasks.get(task.namespace, origin.task_ref.name)
        if known is None or not known.finished:
            return Source(known) if known is not None else None
        try:
            source = await self._kube.get(Task, known.namespace, known.name)
            return Source(source, await self._reader.read_record(ObjectRef.of(source), source.status.context_window))
        except NotFoundError:
            return None
        except ContentLostError as error:
            # The texts of a Task that is being deleted go before, after or with it.
            return Source(source, lost=str(error)) if await is_there(self._kube, source) else None


def span_of_delegation(task: Task) -> SpanContext | None:
    """The span below which a sub-agent's Task is, in the trace of the Task that asked for it."""
    return task.spec.delegated_from.span_context if task.spec.delegated_from else None
