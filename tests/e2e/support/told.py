"""What a user is told about some objects: the texts of their status, and of the Events about them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from tests.e2e.support.failures import ANY, read_failures
from tests.e2e.support.kubectl import Kubectl

from kubechain_common.testing.eventually import eventually

KINDS = "task,taskruntoolcall,mcpserver,agent,events"
SECONDS = 8.0


def assert_row_told(row_id: str, kubectl: Kubectl, *names: str) -> None:
    """Every phrase that the row quotes is told about an object whose name begins with one of these."""
    phrases = read_failures()[row_id].phrases

    def all_told() -> bool:
        texts = list(_texts(json.loads(kubectl("get", KINDS, "-o", "json"))["items"], names))
        missing = [phrase for phrase in phrases if not any(_find(phrase, text) for text in texts)]
        assert not missing, f"{row_id}: not told: {missing}; told: {sorted({text[:300] for text in texts})}"
        return True

    eventually(all_told, SECONDS, what=f"what row {row_id} quotes")


def _texts(items: list[dict[str, Any]], names: tuple[str, ...]) -> Iterator[str]:
    for item in items:
        if item["kind"] == "Event":
            if item["involvedObject"]["name"].startswith(names):
                yield item["reason"]
                yield item["message"]
        elif item["metadata"]["name"].startswith(names):
            yield from _strings(item.get("status", {}))


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _strings(inner)


def _find(phrase: str, text: str) -> bool:
    return re.search(".*".join(map(re.escape, phrase.split(ANY))), text, re.DOTALL) is not None
