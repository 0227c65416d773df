"""What the span of a Task says, by OpenTelemetry's GenAI conventions for agents. Pure."""

from __future__ import annotations

from kubechain_common.api.v1alpha1 import Task
from kubechain_common.api.v1alpha1.task import TaskPhase
from kubechain_common.telemetry.tracing import AttributeValue


def build_agent_attributes(task: Task) -> dict[str, AttributeValue]:
    """The attributes of the span ``invoke_agent``: a Task is one invocation, and the conversation that it has."""
    status = task.status
    attributes: dict[str, AttributeValue] = {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.agent.name": task.spec.agent_ref.name,
        "gen_ai.conversation.id": task.uid,
        "k8s.namespace.name": task.namespace,
        "kubechain.task.name": task.name,
        "kubechain.task.uid": task.uid,
        "kubechain.task.turns": status.turn,
    }
    if status.token_usage is not None:
        attributes["gen_ai.usage.input_tokens"] = status.token_usage.input_tokens
        attributes["gen_ai.usage.output_tokens"] = status.token_usage.output_tokens
    if status.phase == TaskPhase.FAILED:
        attributes["error.type"] = next((c.reason for c in status.conditions if c.type == "Failed"), "Failed")
    return attributes
