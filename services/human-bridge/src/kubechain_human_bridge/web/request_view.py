"""A request as people are shown it, read from the call and its Task."""

from __future__ import annotations

from dataclasses import dataclass

from kubechain_common.api.tool_arguments import read_question
from kubechain_common.api.v1alpha1 import Task, TaskRunToolCall
from kubechain_common.kube.client import KubeClient
from kubechain_common.kube.errors import NotFoundError
from kubechain_common.messages import ObjectRef
from kubechain_human_bridge.channels.ask_text import pretty_arguments


@dataclass(frozen=True)
class RequestView:
    call: TaskRunToolCall
    agent: str
    user_message: str

    @property
    def tool(self) -> str:
        return self.call.spec.tool_ref.name

    @property
    def is_question(self) -> bool:
        return self.call.spec.tool_type == "HumanContact"

    @property
    def content(self) -> str:
        """The question, or the arguments."""
        arguments = self.call.spec.arguments
        return read_question(arguments) if self.is_question else pretty_arguments(arguments)

    @property
    def headline(self) -> str:
        agent = f"Agent {self.agent}" if self.agent else "An agent"
        return f"{agent} asks a question" if self.is_question else f"{agent} asks for approval to call {self.tool}"

    @property
    def facts(self) -> list[tuple[str, str]]:
        known = [
            ("Tool", "" if self.is_question else self.tool),
            ("Agent", self.agent),
            ("Task", f"{self.call.namespace}/{self.call.spec.task_run_ref.name}"),
            ("The task's message", self.user_message),
        ]
        return [(name, value) for name, value in known if value]


async def read_request(kube: KubeClient, ref: ObjectRef) -> RequestView | None:
    """The request of this very call; None when it does not exist. Raises KubeError."""
    try:
        call = await kube.get(TaskRunToolCall, ref.namespace, ref.name)
    except NotFoundError:
        return None
    if call.uid != ref.uid:
        return None
    try:
        task = await kube.get(Task, ref.namespace, call.spec.task_run_ref.name)
    except NotFoundError:
        return RequestView(call, "", "")
    return RequestView(call, task.spec.agent_ref.name, task.spec.user_message or "")
