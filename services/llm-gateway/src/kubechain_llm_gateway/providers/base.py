"""What the gateway asks of a provider, whoever it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol
from urllib.parse import urlsplit

from kubechain_common.api.v1alpha1.conversation import Message, TokenUsage
from kubechain_common.api.v1alpha1.llm import LLMParameters, LLMSpec
from kubechain_common.messages import ResponseFormat, ToolDefinition

CONNECT_TIMEOUT = 10.0
"""Seconds until a TCP and TLS connection must stand."""

CALL_TIMEOUT = 600.0
"""Seconds that a whole completion may take, unless the LLM says otherwise."""

VALIDATION_TIMEOUT = 15.0
"""Seconds that checking a key may take."""

OnDelta = Callable[[str], None]
"""Called with the text that the answer grew by, whenever something arrives; the text may be empty. Must not block."""

_MAX_NAME = 253

CUT_TEXT = "the model reached its token limit: raise parameters.maxTokens"
CUT_CALL = "the model reached its token limit in the middle of a tool call: raise parameters.maxTokens"


@dataclass(frozen=True)
class Completion:
    """The model's next message.

    ``stop_reason`` is the provider's own word for why it stopped; ``incomplete`` says in a sentence why the message is
    not the whole answer, where it is not. ``response_id`` and ``response_model`` are the provider's names for the
    answer and for who gave it.
    """

    message: Message
    usage: TokenUsage
    stop_reason: str
    incomplete: str = ""
    response_id: str = ""
    response_model: str = ""


def identify(completion: Completion, reply: Any) -> Completion:
    """The completion with what its reply says about who gave it."""
    said = reply if isinstance(reply, Mapping) else {}
    return replace(completion, response_id=_name(said.get("id")), response_model=_name(said.get("model")))


def _name(value: Any) -> str:
    return value[:_MAX_NAME] if isinstance(value, str) else ""


@dataclass(frozen=True)
class Validation:
    """The provider is there; ``detail`` says whether its word on the key could be had."""

    detail: str


def timeout_of(spec: LLMSpec) -> float:
    """Seconds that a completion by this LLM may take."""
    return float(spec.request_timeout_seconds or (spec.mistral and spec.mistral.timeout) or CALL_TIMEOUT)


class Tokens(Protocol):
    """Where the token comes from that authorises a call, if it is not the key itself."""

    async def token(self) -> str:
        """A token that is good for the next minutes.

        Raises:
            ProviderError: the key for it is refused, or whoever gives tokens could not be asked.
        """


class Provider(Protocol):
    """One provider with one key; safe for concurrent calls. Its connections are the pool's, so it needs no closing."""

    async def validate(self) -> Validation:
        """Check the key without paying for a completion.

        Raises:
            ProviderError: the key is refused, or the provider could not be asked.
        """

    async def complete(
        self,
        messages: Sequence[Message],
        tools: Sequence[ToolDefinition],
        parameters: LLMParameters,
        on_delta: OnDelta | None,
        response_format: ResponseFormat | None,
    ) -> Completion:
        """The model's answer to the conversation; ``on_delta`` hears of it while it is written.

        The final one is in ``response_format``.

        Raises:
            ProviderError: no answer, or none that can be used.
        """


def base_url_of(spec: LLMSpec, official: str) -> str:
    """Where the LLM's provider is: ``parameters.baseUrl`` or ``official``, without a slash at the end."""
    return ((spec.parameters and spec.parameters.base_url) or official).rstrip("/")


def host_of(base_url: str) -> str:
    return urlsplit(base_url).hostname or ""
