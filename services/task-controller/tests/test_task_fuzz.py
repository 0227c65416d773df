"""The decisions about arbitrary objects: whatever the API server admits, and whatever a message may say."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from kubechain_common.api.turn_calls import child_names
from kubechain_common.api.v1alpha1 import LLM, Agent, ContactChannel, MCPServer, Task, TaskRunToolCall
from kubechain_common.api.v1alpha1.conversation import Message
from kubechain_common.api.v1alpha1.money import LLMPrices
from kubechain_common.messages import LLMResult, ObjectRef
from kubechain_common.messages.llm import conversation_of
from kubechain_common.messages.topology import llm_result_subject
from kubechain_common.messaging import codec
from kubechain_common.messaging.errors import PoisonMessage
from kubechain_common.testing.arbitrary import JSON, NAMES, fuzz, models, resources
from kubechain_task_controller.core.agent_decision import AgentSnapshot, decide_agent
from kubechain_task_controller.core.agent_needs import AgentNeeds
from kubechain_task_controller.core.namespace_budget import COST, CURRENCY, PERIOD, TOKENS, read_budget
from kubechain_task_controller.core.overflow import build_request_window
from kubechain_task_controller.core.plan import Above, TaskSnapshot
from kubechain_task_controller.core.setback import decide_refused
from kubechain_task_controller.core.source import Source
from kubechain_task_controller.core.spent import Spent, spent_by
from kubechain_task_controller.core.task_decision import decide_task
from kubechain_task_controller.core.tool_catalog import ToolCatalog, build_catalog
from kubechain_task_controller.core.unreadable import build_unreadable_result

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CLOSE = {"name": NAMES, "turn": st.integers(1, 3), "role": st.sampled_from(["system", "user", "assistant", "tool"])}
REF = st.fixed_dictionaries({"namespace": st.just("default"), "name": NAMES, "uid": st.just("uid-1")})

tasks = resources(Task, CLOSE)
agents = resources(Agent, CLOSE)
servers = st.dictionaries(NAMES, resources(MCPServer, CLOSE), max_size=2)
sources = tasks.flatmap(
    lambda task: st.builds(
        Source, st.just(task), st.just(task.status.context_window), st.just("") | st.text(max_size=8)
    )
)
texts = st.text(max_size=8) | st.sampled_from(["0", "5", "0.5", "EUR", "day", "month"])
budgets = st.dictionaries(st.sampled_from([TOKENS, COST, CURRENCY, PERIOD]), texts).map(
    lambda given: read_budget("default", given)
)
results = models(LLMResult, {**CLOSE, "v": st.just(1), "task": REF})


@st.composite
def catalogs(draw: st.DrawFn, agent: Agent) -> ToolCatalog:
    """The agent's tools, with some of its people and its sub-agents."""
    channels = {ref.name: draw(resources(ContactChannel, CLOSE)) for ref in agent.spec.human_contact_channels[:1]}
    return build_catalog(agent, draw(servers), channels, {ref.name: agent for ref in agent.spec.sub_agents[:1]})


@st.composite
def snapshots(draw: st.DrawFn) -> TaskSnapshot:
    task, agent = draw(tasks), draw(st.none() | agents)
    window = task.status.context_window
    count = len((window[-1].tool_calls if window else None) or [])
    children = {}
    for name in child_names(task, task.status.turn, count):
        child = draw(st.none() | resources(TaskRunToolCall, CLOSE))
        if child is not None:
            children[name] = child
    return TaskSnapshot(
        task=task,
        now=NOW,
        agent=agent,
        agent_complete=draw(st.booleans()),
        llm=draw(st.none() | REF.map(ObjectRef.model_validate)),
        catalog=draw(catalogs(agent)) if agent else ToolCatalog(),
        children=children,
        result=draw(st.none() | results),
        request_on_its_way=draw(st.booleans()),
        source=draw(st.none() | sources),
        prices=draw(st.none() | models(LLMPrices)),
        answer_prices=draw(st.none() | models(LLMPrices)),
        spent_below=Spent(total=draw(st.integers(0, 9))),
        above=draw(st.lists(tasks.map(lambda above: Above(above, spent_by(above.status))), max_size=1).map(tuple)),
        namespace_budget=draw(st.none() | budgets),
        spent_in_namespace=Spent(total=draw(st.integers(0, 9))),
    )


@fuzz
@given(snapshots(), st.text(max_size=12), st.booleans())
def test_every_task_has_a_next_step(snapshot: TaskSnapshot, refusal: str, too_large: bool) -> None:
    plan = decide_task(snapshot)
    if plan.status is not None:
        plan.status.to_wire()
    for child in plan.children:
        child.to_wire()
    failed = decide_refused(snapshot, refusal, too_large=too_large).status
    assert failed is not None
    assert failed.phase == "Failed"


@fuzz
@given(snapshots())
def test_a_conversation_is_the_same_when_it_was_in_the_api_server(snapshot: TaskSnapshot) -> None:
    """Else its request would be taken for another one's after a restart, withdrawn and sent again."""
    plan = decide_task(snapshot)
    begun = snapshot.task.model_copy(update={"status": plan.status or snapshot.task.status})
    read_back = Task.model_validate(json.loads(json.dumps(begun.to_wire(), sort_keys=True)))
    said = conversation_of(build_request_window(begun))
    assert conversation_of(build_request_window(read_back)) == said


def test_conversations_are_told_apart_by_what_is_said() -> None:
    hello, bye = Message(role="user", content="hello"), Message(role="user", content="bye")
    assert conversation_of([hello]) != conversation_of([bye]) != conversation_of([hello, bye])
    assert conversation_of([hello]) == "666210238ffa9abb", "requests of an older release would be sent again"


@fuzz
@given(agents, st.none() | resources(LLM, CLOSE), servers, st.lists(agents, max_size=3))
def test_every_agent_has_a_status(
    agent: Agent, llm: LLM | None, servers: dict[str, MCPServer], others: list[Agent]
) -> None:
    known = {name: server for name, server in servers.items() if name in {r.name for r in agent.spec.mcp_servers}}
    names = [ref.name for ref in agent.spec.sub_agents]
    reachable = {name: AgentNeeds(other, llm) for name, other in zip(names, others, strict=False)}
    plan = decide_agent(AgentSnapshot(AgentNeeds(agent, llm, known), NOW, reachable))
    assert plan.status is not None or agent.metadata.deleting or plan.events == ()


@fuzz
@given(
    st.binary(max_size=40) | JSON.map(lambda value: json.dumps(value).encode()) | results.map(codec.encode),
    st.integers(1, 9),
)
def test_every_message_is_a_result_or_an_error_of_its_task(data: bytes, turn: int) -> None:
    try:
        result = codec.decode(LLMResult, data)
    except PoisonMessage as poison:
        unreadable = build_unreadable_result(llm_result_subject("default", "uid-1", turn, "0"), poison.reason)
        assert unreadable is not None
        result = codec.decode(LLMResult, codec.encode(unreadable))
        assert (result.task.uid, result.turn, result.outcome) == ("uid-1", turn, "Error")
    assert result.task.uid == "uid-1"
