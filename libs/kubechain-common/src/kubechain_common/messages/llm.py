"""task-controller -> llm-gateway: one turn's conversation; llm-gateway -> task-controller: what the model said."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from kubechain_common.api.v1alpha1.conversation import Message, TokenUsage
from kubechain_common.api.v1alpha1.meta import KubeModel
from kubechain_common.messages.envelope import Envelope, ObjectRef

UNKNOWN_CONVERSATION = "0"
"""That of a request which does not say it, from an older task-controller; its answer is one to any."""

_MESSAGES = TypeAdapter(list[Message])

Conversation = Annotated[str, Field(pattern=r"^[0-9a-f]{1,32}$")]
"""Which conversation a turn is about (``conversation_of``)."""


def conversation_of(messages: Sequence[Message]) -> str:
    """A digest of what is said to the model: an answer to one conversation is none to another, whatever its turn.

    It is the same when the messages were in the API server meanwhile, which sorts the keys of what it does not know.
    """
    said = _MESSAGES.dump_python(list(messages), mode="json", by_alias=True, exclude_none=True)
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]


class ToolDefinition(KubeModel):
    """A tool as the model sees it; ``parameters`` is a JSON schema."""

    name: str
    description: str = ""
    parameters: dict[str, Any] = Field(default_factory=dict)


class ResponseFormat(KubeModel):
    """The JSON that the final answer must be: ``json_schema`` describes it, ``name`` tells the model what it is."""

    name: str
    json_schema: dict[str, Any]


class LLMRequest(Envelope):
    """Ask the model for its next message. The parameters are the LLM's own; the gateway reads them when it calls.

    ``messages`` is the window as the Task holds it, with references in place of long texts, so a request costs the same
    however long the conversation is. ``texts`` are those that the sender had at hand, by ``content.reference_key``:
    they save the gateway a question to the API server, and nothing depends on them. ``conversation`` is the digest of
    the messages, which the result repeats. With ``response_format`` the answer is JSON, unless it is tool calls.
    """

    task: ObjectRef
    turn: Annotated[int, Field(ge=0)]
    llm: ObjectRef
    conversation: Conversation = UNKNOWN_CONVERSATION
    messages: list[Message]
    texts: dict[str, str] = Field(default_factory=dict)
    tools: list[ToolDefinition] = Field(default_factory=list)
    response_format: ResponseFormat | None = None


class LLMCallError(KubeModel):
    """Why the model gave no answer.

    ``status_code`` is the provider's HTTP status, where it answered at all; ``reason`` is set where it was not asked.
    """

    message: str
    reason: str = ""
    status_code: int | None = None
    retryable: bool = False


class LLMResult(Envelope):
    """The answer to one turn.

    ``outcome`` Retrying is a notice, not an answer: attempt ``attempt`` failed with ``error`` and the next follows in
    ``retry_in_seconds``; without these, when the LLM or its Secret changes. ``incomplete`` says why the message is not
    the model's whole answer, where it is not. ``llm`` is the LLM that the request named, which the Agent may have
    exchanged since; an older gateway does not say it. ``answered_by`` is the fallback that answered in its place, and
    ``fallback_reason`` why.
    """

    task: ObjectRef
    turn: Annotated[int, Field(ge=0)]
    conversation: Conversation = UNKNOWN_CONVERSATION
    outcome: Literal["Message", "Error", "Retrying"]
    message: Message | None = None
    usage: TokenUsage | None = None
    stop_reason: str = ""
    incomplete: str = ""
    llm: ObjectRef | None = None
    answered_by: ObjectRef | None = None
    fallback_reason: str = ""
    error: LLMCallError | None = None
    attempt: int = 1
    retry_in_seconds: float | None = None


REASON_CONTENT_LOST = "ContentLost"
"""A text that the conversation refers to is gone, so the model was not asked."""
