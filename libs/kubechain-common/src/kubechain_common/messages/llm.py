"""task-controller -> llm-gateway: one turn's conversation; llm-gateway -> task-controller: what the model said."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from kubechain_common.api.v1alpha1.conversation import Message, TokenUsage
from kubechain_common.api.v1alpha1.meta import KubeModel
from kubechain_common.messages.envelope import Envelope, ObjectRef


class ToolDefinition(KubeModel):
    """A tool as the model sees it; ``parameters`` is a JSON schema."""

    name: str
    description: str = ""
    parameters: dict[str, Any] = Field(default_factory=dict)


class LLMRequest(Envelope):
    """Ask the model for its next message. The parameters are the LLM's own; the gateway reads them when it calls."""

    task: ObjectRef
    turn: int
    llm: ObjectRef
    messages: list[Message]
    tools: list[ToolDefinition] = Field(default_factory=list)


class LLMCallError(KubeModel):
    """Why the model gave no answer. ``status_code`` is the provider's HTTP status, where it answered at all."""

    message: str
    status_code: int | None = None
    retryable: bool = False


class LLMResult(Envelope):
    """The answer to one turn.

    ``outcome`` Retrying is a notice, not an answer: attempt ``attempt`` failed with ``error`` and the next follows in
    ``retry_in_seconds``.
    """

    task: ObjectRef
    turn: int
    outcome: Literal["Message", "Error", "Retrying"]
    message: Message | None = None
    usage: TokenUsage | None = None
    stop_reason: str = ""
    error: LLMCallError | None = None
    attempt: int = 1
    retry_in_seconds: float | None = None
