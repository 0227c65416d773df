"""Images of tool results on their way to a model, in both protocols."""

from __future__ import annotations

from typing import Any

from kubechain_common.api.v1alpha1.conversation import (
    ConfigMapKeyRef,
    ImageSource,
    Message,
    MessageToolCall,
    ShownImage,
    ToolCallFunction,
)
from kubechain_common.api.v1alpha1.llm import LLMParameters
from kubechain_llm_gateway.protocols import anthropic_mapping, openai_mapping
from kubechain_llm_gateway.protocols.dialect import Dialect

PARAMETERS = LLMParameters(model="any")
REFERENCE = ConfigMapKeyRef(name="stored", key="image")
NOT_READ = ImageSource(mime_type="image/png", config_map_key_ref=REFERENCE)


def shown(data: str) -> ShownImage:
    return ShownImage(mime_type="image/png", config_map_key_ref=REFERENCE, data=data)


def result(call_id: str, *images: ImageSource) -> Message:
    return Message(role="tool", tool_call_id=call_id, content=f"text of {call_id}", images=list(images) or None)


def conversation(*results: Message) -> list[Message]:
    asked = [
        MessageToolCall(id=message.tool_call_id or "", function=ToolCallFunction(name="look")) for message in results
    ]
    return [Message(role="user", content="hi"), Message(role="assistant", tool_calls=asked), *results]


def openai_wire(messages: list[Message]) -> list[dict[str, Any]]:
    wire: list[dict[str, Any]] = openai_mapping.build_request(
        messages, [], PARAMETERS, Dialect(host="api.openai.com", official=True)
    )["messages"]
    return wire


def anthropic_results(messages: list[Message]) -> list[dict[str, Any]]:
    wire = anthropic_mapping.build_request(messages, [], PARAMETERS)["messages"]
    return [block for turn in wire for block in turn["content"] if block["type"] == "tool_result"]


def test_chat_completions_shows_the_images_once_all_results_are_there() -> None:
    window = [
        *conversation(result("a", shown("AAAA")), result("b"), result("c", shown("CCCC"))),
        Message(role="assistant", content="I see."),
    ]
    wire = openai_wire(window)
    assert [message["role"] for message in wire] == ["user", "assistant", "tool", "tool", "tool", "user", "assistant"]
    assert [message["content"] for message in wire[2:5]] == ["text of a", "text of b", "text of c"]
    text, *images = wire[5]["content"]
    assert text["type"] == "text"
    assert [image["image_url"]["url"] for image in images] == [
        "data:image/png;base64,AAAA",
        "data:image/png;base64,CCCC",
    ]


def test_chat_completions_shows_the_images_of_the_last_results() -> None:
    wire = openai_wire(conversation(result("a", shown("AAAA"))))
    assert [message["role"] for message in wire] == ["user", "assistant", "tool", "user"]


def test_messages_has_them_beside_the_text_of_their_result() -> None:
    first, second = anthropic_results(conversation(result("a", shown("AAAA")), result("b")))
    source = {"type": "base64", "media_type": "image/png", "data": "AAAA"}
    assert first["content"] == [{"type": "text", "text": "text of a"}, {"type": "image", "source": source}]
    assert second["content"] == "text of b"


def test_an_image_that_was_not_read_does_not_go_out() -> None:
    window = conversation(result("a", NOT_READ))
    assert [message["role"] for message in openai_wire(window)] == ["user", "assistant", "tool"]
    assert anthropic_results(window)[0]["content"] == "text of a"
