"""What a tool returned, as the text that the model reads (pure).

Pictures, sounds and binary files are named, not carried: the model gets text. The result is never empty, so that
"the tool had nothing to say" can be told from "something got lost".
"""

from __future__ import annotations

import json
from collections.abc import Iterator

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

from kubechain_mcp_host.unicode_text import without_surrogates

MAX_BYTES = 256 * 1024
MAX_ERROR_CHARACTERS = 16 * 1024
NO_CONTENT = "[no content]"


def render_result(result: CallToolResult) -> str:
    """The whole result as text: its blocks one after another, or its structured content when no block is text."""
    parts = list(_render_blocks(result))
    if result.structured_content is not None and not any(_is_text(block) for block in result.content):
        parts.append(json.dumps(result.structured_content, ensure_ascii=False))
    return without_surrogates("\n".join(parts)) or NO_CONTENT


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
