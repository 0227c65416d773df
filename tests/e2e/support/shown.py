"""What kubectl shows of some objects now: enough for words that stay. For words that pass see ``witness``."""

from __future__ import annotations

from collections.abc import Iterator

from tests.e2e.support.kubectl import Kubectl
from tests.e2e.support.witness import texts

KINDS = ("task", "taskruntoolcall", "mcpserver", "agent", "events")


class Shown:
    """Asks anew each time; a name stands for all that begins with it, so that a Task's stands for its calls too."""

    def __init__(self, kubectl: Kubectl) -> None:
        self._kubectl = kubectl

    def told(self, *names: str) -> list[str]:
        return list(self._texts(names))

    def _texts(self, names: tuple[str, ...]) -> Iterator[str]:
        for item in (item for kind in KINDS for item in self._kubectl.list(kind)):
            if item["kind"] == "Event":
                if item["involvedObject"]["name"].startswith(names):
                    yield from (item["reason"], item["message"])
            elif item["metadata"]["name"].startswith(names):
                yield from texts(item.get("status"))
