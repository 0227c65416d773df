"""What a model's name tells of it, where that is certain. Pure; an unknown name tells nothing."""

from __future__ import annotations

import re

_CLAUDE = re.compile(r"claude-[a-z]+-(\d{1,2})(?:-(\d{1,2}))?(?!\d)")
_EARLY_CLAUDE = re.compile(r"claude-(\d)(?:[-.](\d))?(?!\d)")
_GEMINI = re.compile(r"(?:google/)?gemini-(\d+)(?:\.(\d+))?")
_REASONING_ONLY = re.compile(r"o\d+(-.+)?|gpt-5(-mini|-nano)?(-\d{4}-\d{2}-\d{2})?")

Version = tuple[int, int]


def claude_version(model: str) -> Version | None:
    """(4, 5) of ``claude-sonnet-4-5-20250929``, (3, 5) of ``claude-3-5-sonnet-latest``."""
    found = _CLAUDE.match(model) or _EARLY_CLAUDE.match(model)
    return _version(found) if found else None


def gemini_version(model: str) -> Version | None:
    """(2, 5) of ``gemini-2.5-flash``."""
    found = _GEMINI.match(model)
    return _version(found) if found else None


def is_openai_reasoning_only(model: str) -> bool:
    """OpenAI's models that always reason, and take no sampling parameters for that."""
    return _REASONING_ONLY.fullmatch(model) is not None


def _version(found: re.Match[str]) -> Version:
    return int(found[1]), int(found[2] or 0)
