"""Version v1alpha1 of the six kinds."""

from kubechain_common.api.v1alpha1.agent import Agent
from kubechain_common.api.v1alpha1.contactchannel import ContactChannel
from kubechain_common.api.v1alpha1.llm import LLM
from kubechain_common.api.v1alpha1.mcpserver import MCPServer
from kubechain_common.api.v1alpha1.meta import Resource
from kubechain_common.api.v1alpha1.task import Task
from kubechain_common.api.v1alpha1.taskruntoolcall import TaskRunToolCall

ALL_KINDS: tuple[type[Resource], ...] = (LLM, Agent, Task, TaskRunToolCall, MCPServer, ContactChannel)

__all__ = ["ALL_KINDS", "LLM", "Agent", "ContactChannel", "MCPServer", "Resource", "Task", "TaskRunToolCall"]
