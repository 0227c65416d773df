"""The messages of a context window: the whole call stack of a Task.

The same models are the window in ``Task.status`` and the conversation that travels to the gateway. Both may hold
references in place of long texts (see ``contentFrom``); ``kube.window_reader`` turns such a window into what the model
reads.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from kubechain_common.api.nesting import OpenObject
from kubechain_common.api.v1alpha1.meta import KubeModel, Ref

Role = Literal["system", "user", "assistant", "tool", "earlier", "summary"]
"""``earlier`` is no message: it stands for the messages that ``contentFrom`` names, oldest first. ``summary`` is what
the model said about the conversation before it, of which it reads the beginning and ``keeps`` messages from then on.
"""

MAX_CONTENT = 1_048_576

ImageType = Literal["image/png", "image/jpeg", "image/gif", "image/webp"]
"""The formats of images that every provider takes which takes any."""

MAX_IMAGES = 8
"""Images of one tool result that are kept."""

MAX_IMAGE_DATA = 1_000_000
"""Characters of an image in base64: a ConfigMap takes one such text."""


class ArgumentsSource(KubeModel):
    """Where the whole arguments of a call are kept when ``arguments`` holds their beginning only."""

    task_run_tool_call_ref: Annotated[Ref, Field(description="The TaskRunToolCall that holds them in its spec.")]


class ToolCallFunction(KubeModel):
    """What the model wants to call."""

    name: Annotated[str, Field(max_length=253, description="Name of the tool, as the model called it.")]
    arguments: Annotated[
        str,
        Field(
            max_length=MAX_CONTENT,
            description="The JSON text exactly as the model wrote it; its beginning where argumentsFrom is set.",
        ),
    ] = ""
    arguments_from: ArgumentsSource | None = None


class MessageToolCall(KubeModel):
    id: Annotated[str, Field(max_length=1024, description="Id of the call, as the provider gave it.")]
    type: Annotated[str, Field(max_length=63, description="Kind of the call. Absent: function.")] = "function"
    function: ToolCallFunction


class ConfigMapKeyRef(KubeModel):
    """Names one key of a ConfigMap in the same namespace."""

    name: Annotated[str, Field(min_length=1, max_length=253, description="Name of the ConfigMap.")]
    key: Annotated[str, Field(min_length=1, max_length=253, description="Key in the ConfigMap's data.")]


class ContentSource(KubeModel):
    """Where the whole text of a message is kept when ``content`` holds a preview only."""

    # Exactly one. Not as a rule in CEL: every write of a Task would evaluate that for each of its messages.
    model_config = ConfigDict(json_schema_extra={"minProperties": 1, "maxProperties": 1})

    task_run_tool_call_ref: (
        Annotated[Ref, Field(description="The TaskRunToolCall whose result is the text.")] | None
    ) = None
    config_map_key_ref: (
        Annotated[ConfigMapKeyRef, Field(description="The ConfigMap of the Task that holds the text.")] | None
    ) = None


class ImageSource(KubeModel):
    """Where an image is kept, in base64."""

    mime_type: Annotated[ImageType, Field(description="The format of the image.")]
    config_map_key_ref: Annotated[ConfigMapKeyRef, Field(description="The ConfigMap of the Task that holds it.")]


class ShownImage(ImageSource):
    """An image with its ``data`` in base64, on its way to a model; no object holds it in this form."""

    data: str


InputTokens = Annotated[int, Field(description="Tokens that the model read.")]
OutputTokens = Annotated[int, Field(description="Tokens that the model wrote.")]


class MessageUsage(KubeModel):
    """What one turn used: tokens that the model read, and wrote."""

    input_tokens: InputTokens = 0
    output_tokens: OutputTokens = 0


class Message(KubeModel):
    """One message; ``providerData`` is opaque and goes back to the provider that wrote it, untouched."""

    role: Annotated[
        Role,
        Field(
            description="Whose message it is: system, user, assistant (the model) or tool. earlier stands for older"
            " messages that are kept elsewhere, summary for what the model said about those before it."
        ),
    ]
    content: Annotated[
        str, Field(max_length=MAX_CONTENT, description="The text; its beginning where contentFrom is set.")
    ] = ""
    content_from: ContentSource | None = None
    tool_calls: (
        Annotated[
            list[MessageToolCall], Field(max_length=256, description="Of the assistant: the calls that it asks for.")
        ]
        | None
    ) = None
    tool_call_id: (
        Annotated[str, Field(max_length=1024, description="Of a tool: the id of the call that it answers.")] | None
    ) = None
    name: (
        Annotated[str, Field(max_length=253, description="Name of the speaker, for providers that take one.")] | None
    ) = None
    images: (
        Annotated[
            list[ImageSource], Field(max_length=MAX_IMAGES, description="Of a tool: the images that it returned.")
        ]
        | None
    ) = None
    provider_data: (
        Annotated[OpenObject, Field(description="What the provider sent with the message, and is sent back untouched.")]
        | None
    ) = None
    usage: Annotated[MessageUsage, Field(description="Of an answer: the tokens of its turn.")] | None = None
    keeps: (
        Annotated[int, Field(description="Of a summary: the messages before it that the model still reads in full.")]
        | None
    ) = None


class GivenMessage(Message):
    """A message that a user gives to a Task; references to other objects are the controller's own."""


class TokenUsage(KubeModel):
    """Tokens as the provider counted them; what it did not tell is absent."""

    input_tokens: InputTokens = 0
    output_tokens: OutputTokens = 0
    total_tokens: Annotated[int, Field(description="Both together.")] = 0
    cached_input_tokens: Annotated[int, Field(description="Of inputTokens: read from the provider's cache.")] | None = (
        None
    )
    cache_write_tokens: Annotated[int, Field(description="Of inputTokens: written to the provider's cache.")] | None = (
        None
    )
    reasoning_tokens: Annotated[int, Field(description="Of outputTokens: what the model thought.")] | None = None

    def __add__(self, other: TokenUsage) -> TokenUsage:
        return TokenUsage(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            total_tokens=self.total_tokens + other.total_tokens,
            cached_input_tokens=_sum(self.cached_input_tokens, other.cached_input_tokens),
            cache_write_tokens=_sum(self.cache_write_tokens, other.cache_write_tokens),
            reasoning_tokens=_sum(self.reasoning_tokens, other.reasoning_tokens),
        )


def _sum(one: int | None, other: int | None) -> int | None:
    return other if one is None else one + (other or 0)
