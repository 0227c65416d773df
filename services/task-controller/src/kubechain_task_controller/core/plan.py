"""What a decision looks at, and what it asks for.

A plan is carried out in this order: what is taken back, then stored texts, status, children, request, events. Each part
is idempotent: work is taken back any number of times, a text has a name made of itself, the status is guarded by
resourceVersion, children have deterministic names, the request has a subject of its own, events are best effort. So a
crash between any two of them is healed by reconciling again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from kubechain_common.api.stored_text import StoredText
from kubechain_common.api.v1alpha1.agent import Agent
from kubechain_common.api.v1alpha1.conversation import TokenUsage
from kubechain_common.api.v1alpha1.money import LLMPrices
from kubechain_common.api.v1alpha1.status import SpanContext
from kubechain_common.api.v1alpha1.task import Task, TaskPhase, TaskStatus
from kubechain_common.api.v1alpha1.taskruntoolcall import TaskRunToolCall
from kubechain_common.messages import LLMResult, ObjectRef
from kubechain_common.messages.llm import UNKNOWN_CONVERSATION
from kubechain_task_controller.core.namespace_budget import NamespaceBudget
from kubechain_task_controller.core.source import Source
from kubechain_task_controller.core.spent import Money, Spent
from kubechain_task_controller.core.tool_catalog import ToolCatalog


@dataclass(frozen=True)
class PlannedEvent:
    """A Kubernetes Event about the object that is reconciled."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


@dataclass(frozen=True)
class Above:
    """A Task with a budget for which this one works, and what it and all that work for it have used so far."""

    task: Task
    spent: Spent


@dataclass(frozen=True)
class TaskSnapshot:
    """Everything that the next step of a Task depends on.

    ``agent_complete`` says that all that the Agent names is there and ready, whatever the Agent says of it; its
    sub-agents need only be there.
    ``refused`` holds the children that the API server would not take, with its reason. ``source`` is the Task that
    ``spec.contextWindowFrom`` names. ``new_span`` is used if the Task starts now. ``prices`` are those of the LLM,
    ``answer_prices`` those of whoever gave the result; ``spent_below`` is what the Tasks of sub-agents used that work
    for this one, ``spent_in_namespace`` what all Tasks of the namespace used in the present period of its budget.
    ``conversation`` is that of the turn that the Task asks the model for, if it does. ``keeps_results`` is False once
    the results of the last calls could not be stored.
    """

    task: Task
    now: datetime
    agent: Agent | None = None
    agent_complete: bool = True
    llm: ObjectRef | None = None
    prices: LLMPrices | None = None
    answer_prices: LLMPrices | None = None
    spent_below: Spent = field(default_factory=Spent)
    above: tuple[Above, ...] = ()
    namespace_budget: NamespaceBudget | None = None
    spent_in_namespace: Spent = field(default_factory=Spent)
    catalog: ToolCatalog = field(default_factory=ToolCatalog)
    children: Mapping[str, TaskRunToolCall] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    result: LLMResult | None = None
    conversation: str = UNKNOWN_CONVERSATION
    request_on_its_way: bool = False
    source: Source | None = None
    new_span: SpanContext = field(default_factory=SpanContext)
    keeps_results: bool = True

    @property
    def asked_llm(self) -> ObjectRef | None:
        """The LLM that was asked for the result, whatever the Agent names now."""
        return (self.result.llm if self.result is not None else None) or self.llm

    @property
    def agent_ready(self) -> bool:
        """Whether the Agent says so, and nothing that it names is missing or unready since: its next word will tell."""
        return self._says_ready and self.agent_complete

    @property
    def agent_unsettled(self) -> bool:
        """Whether the Agent's word is out of date. What is missing may be back before it says anything else."""
        return self._says_ready and not self.agent_complete

    @property
    def _says_ready(self) -> bool:
        """The Agent's word counts only if it was given about its present spec."""
        agent = self.agent
        return (
            agent is not None
            and self.llm is not None
            and not agent.metadata.deleting
            and agent.status.ready
            and agent.status.observed_generation == agent.metadata.generation
        )


@dataclass(frozen=True)
class Turn:
    """A turn that was answered: what it used, and what that costs where the LLM has prices."""

    usage: TokenUsage
    cost: Money | None = None


@dataclass(frozen=True)
class TaskPlan:
    """The next step of a Task.

    ``withdraw`` takes the LLM request of the Task back. ``forbid`` names the calls that may not begin any more,
    ``cancel`` those to be cancelled: the first for all of them before the second for any, because a call that ends
    makes room for the next. All this comes before the status says that the Task has ended, so that a crash in between
    leads to the same plan.

    ``send`` asks for the request of the turn that the (new) status stands in; ``fresh`` says that the turn begins with
    this plan, ``may_wait`` that its status says nothing else, so that the request may go before it is written.
    ``consumed`` says that the snapshot's result is done with once the status is written. ``stored`` are the texts that
    the status points at; ``texts`` go with the request, because they are at hand. ``answered`` is for the metrics.
    ``keeps_results`` says that the Task ends, and can do so without the texts and without the results in its window.
    """

    status: TaskStatus | None = None
    consumed: bool = False
    children: tuple[TaskRunToolCall, ...] = ()
    send: bool = False
    fresh: bool = False
    may_wait: bool = False
    events: tuple[PlannedEvent, ...] = ()
    requeue_after: float | None = None
    delete: bool = False
    withdraw: bool = False
    forbid: tuple[str, ...] = ()
    cancel: tuple[str, ...] = ()
    stored: tuple[StoredText, ...] = ()
    texts: Mapping[str, str] = field(default_factory=dict)
    answered: Turn | None = None
    keeps_results: bool = False

    @property
    def gives_up(self) -> bool:
        """Whether the Task goes, or ends without an answer."""
        return self.withdraw or (self.status is not None and self.status.phase == TaskPhase.FAILED)


NOTHING = TaskPlan()
