"""What a tool returned, as the text that the model reads, and the images that it may look at (pure).

Pictures, sounds and binary files are named in the text: that is all that a model gets which takes no images. The text
is never empty, so that "the tool had nothing to say" can be told from "something got lost".
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator
from typing import get_args

from mcp_types import (
    AudioContent,
    BlobResourceContents,
    CallToolResult,
    ContentBlock,
    EmbeddedResource,
    ImageContent,
    ResourceLink,
    TextContent,
)

from kubechain_common.api.unicode_text import mend
from kubechain_common.api.v1alpha1.conversation import MAX_IMAGE_DATA, MAX_IMAGES, ImageType
from kubechain_common.messages.tool import ToolImage

MAX_BYTES = 256 * 1024
MAX_ERROR_CHARACTERS = 16 * 1024
NO_CONTENT = "[no content]"

_IMAGE_TYPES = frozenset(get_args(ImageType))


def render_result(result: CallToolResult) -> str:
    """The whole result as text: its blocks one after another, or its structured content when no block is text."""
    parts = list(_render_blocks(result))
    if result.structured_content is not None and not any(_is_text(block) for block in result.content):
        parts.append(json.dumps(result.structured_content, ensure_ascii=False))
    return mend("\n".join(parts)) or NO_CONTENT


def find_images(result: CallToolResult) -> list[ToolImage]:
    """The images that are to be kept: the first eight of the usual types, none of them too large for a ConfigMap."""
    found: list[ToolImage] = []
    for block in result.content:
        image = _image_of(block)
        if image is not None and len(found) < MAX_IMAGES:
            found.append(image)
    return found


def _image_of(block: ContentBlock) -> ToolImage | None:
    match block:
        case ImageContent():
            mime_type, data = block.mime_type, block.data
        case EmbeddedResource(resource=BlobResourceContents() as blob):
            mime_type, data = blob.mime_type or "", blob.blob
        case _:
            return None
    if mime_type not in _IMAGE_TYPES or not data or len(data) > MAX_IMAGE_DATA:
        return None
    try:  # a provider refuses the whole conversation for one text that is no base64
        return ToolImage(mime_type=mime_type, data=base64.b64encode(base64.b64decode(data, validate=True)).decode())
    except (binascii.Error, ValueError):
        return None


def cap(text: str, limit: int = MAX_BYTES) -> str:
    """The text itself, or its beginning with a mark that tells both sizes; at most ``limit`` bytes of UTF-8 either
    way.
    """
    size = len(text.encode())
    if size <= limit:
        return text
    mark = f"\n[truncated: the first {{kept:,}} of {size:,} bytes]"
    room = limit - len(mark.format(kept=limit).encode())
    kept = text.encode()[:room].decode(errors="ignore")
    return kept + mark.format(kept=len(kept.encode()))


def _render_blocks(result: CallToolResult) -> Iterator[str]:
    for block in result.content:
        text = _render(block)
        if text:
            yield text


def _render(block: ContentBlock) -> str:
    match block:
        case TextContent():
            return block.text
        case ImageContent() | AudioContent():
            return f"[{block.mime_type}, {_decoded_size(block.data):,} bytes]"
        case ResourceLink():
            kind = f", {block.mime_type}" if block.mime_type else ""
            size = f", {block.size:,} bytes" if block.size is not None else ""
            return f"[resource {block.name}: {block.uri}{kind}{size}]"
        case EmbeddedResource():
            return _render_resource(block)
    return f"[{block.type}]"


def _render_resource(block: EmbeddedResource) -> str:
    resource = block.resource
    if isinstance(resource, BlobResourceContents):
        kind = resource.mime_type or "application/octet-stream"
        return f"[resource {resource.uri}: {kind}, {_decoded_size(resource.blob):,} bytes]"
    return resource.text


def _is_text(block: ContentBlock) -> bool:
    if isinstance(block, TextContent):
        return bool(block.text)
    return isinstance(block, EmbeddedResource) and not isinstance(block.resource, BlobResourceContents)


def _decoded_size(base64: str) -> int:
    """How many bytes a base64 text stands for, without decoding it."""
    digits = base64.rstrip("=\n\r ")
    return len(digits) * 3 // 4
