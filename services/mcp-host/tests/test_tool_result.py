"""Results as text."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from mcp_types import CallToolResult

from kubechain_common.api.v1alpha1.conversation import MAX_IMAGE_DATA, MAX_IMAGES
from kubechain_mcp_host.calls.tool_result import MAX_BYTES, NO_CONTENT, cap, find_images, render_result


def result(*blocks: dict[str, Any], **fields: Any) -> CallToolResult:
    return CallToolResult.model_validate({"content": list(blocks), **fields})


def text(value: str) -> dict[str, Any]:
    return {"type": "text", "text": value}


def blob(size: int) -> str:
    return base64.b64encode(b"x" * size).decode()


def test_text_blocks_are_lines() -> None:
    assert render_result(result(text("one"), text("two"))) == "one\ntwo"


@pytest.mark.parametrize("size", [0, 1, 2, 3, 1234])
def test_pictures_and_sounds_are_named_by_type_and_size(size: int) -> None:
    blocks = [
        {"type": "image", "data": blob(size), "mimeType": "image/png"},
        {"type": "audio", "data": blob(size), "mimeType": "audio/wav"},
    ]
    assert render_result(result(*blocks)) == f"[image/png, {size:,} bytes]\n[audio/wav, {size:,} bytes]"


def test_resource_links_carry_uri_name_and_type() -> None:
    link = {"type": "resource_link", "name": "log", "uri": "file:///log", "mimeType": "text/plain", "size": 12345}
    assert render_result(result(link)) == "[resource log: file:///log, text/plain, 12,345 bytes]"
    bare = {"type": "resource_link", "name": "log", "uri": "file:///log"}
    assert render_result(result(bare)) == "[resource log: file:///log]"


def test_embedded_text_is_kept_whole_and_embedded_files_are_named() -> None:
    blocks = [
        {"type": "resource", "resource": {"uri": "file:///a.txt", "text": "whole\ntext"}},
        {"type": "resource", "resource": {"uri": "file:///b.pdf", "blob": blob(5), "mimeType": "application/pdf"}},
        {"type": "resource", "resource": {"uri": "file:///c", "blob": blob(5)}},
    ]
    assert render_result(result(*blocks)) == (
        "whole\ntext\n[resource file:///b.pdf: application/pdf, 5 bytes]\n"
        "[resource file:///c: application/octet-stream, 5 bytes]"
    )


def test_structured_content_stands_in_for_missing_text() -> None:
    picture = {"type": "image", "data": blob(3), "mimeType": "image/png"}
    assert render_result(result(structuredContent={"a": "ü"})) == '{"a": "ü"}'
    assert render_result(result(picture, structuredContent={"a": 1})) == '[image/png, 3 bytes]\n{"a": 1}'
    assert render_result(result(text(""), structuredContent=[])) == "[]"
    assert render_result(result(text('{"a": 1}'), structuredContent={"a": 1})) == '{"a": 1}'


def test_a_result_is_never_empty() -> None:
    assert render_result(result()) == NO_CONTENT
    assert render_result(result(text(""))) == NO_CONTENT


def test_a_long_result_is_cut_and_says_so() -> None:
    assert cap("x" * MAX_BYTES) == "x" * MAX_BYTES
    cut = cap("é" * MAX_BYTES)
    assert len(cut.encode()) <= MAX_BYTES
    kept = cut.partition("\n")[0]
    assert cut.endswith(f"[truncated: the first {len(kept.encode()):,} of 524,288 bytes]")


def image(data: str, mime_type: str = "image/png") -> dict[str, Any]:
    return {"type": "image", "data": data, "mimeType": mime_type}


def test_images_are_kept_wherever_they_stand() -> None:
    inside = {"type": "resource", "resource": {"uri": "file:///a", "blob": blob(4), "mimeType": "image/webp"}}
    found = find_images(result(text("look"), image(blob(3)), inside))
    assert [(kept.mime_type, kept.data) for kept in found] == [("image/png", blob(3)), ("image/webp", blob(4))]


@pytest.mark.parametrize(
    "block",
    [
        image(blob(3), "image/svg+xml"),
        image(""),
        image("no base64!"),
        image(blob(MAX_IMAGE_DATA)),
        {"type": "audio", "data": blob(3), "mimeType": "audio/wav"},
        {"type": "resource", "resource": {"uri": "file:///a", "blob": blob(3)}},
        {"type": "resource", "resource": {"uri": "file:///a", "text": "text", "mimeType": "image/png"}},
    ],
)
def test_what_no_model_takes_as_an_image_is_not_kept(block: dict[str, Any]) -> None:
    assert find_images(result(block)) == []


def test_only_the_first_images_are_kept() -> None:
    pictures = [image(blob(size)) for size in range(1, MAX_IMAGES + 5)]
    assert [kept.data for kept in find_images(result(*pictures))] == [blob(size) for size in range(1, MAX_IMAGES + 1)]
