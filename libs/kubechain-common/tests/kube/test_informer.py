"""The informer's decisions that no real API server can be brought to ask for; all others are in tests/integration."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from kubechain_common.api.v1alpha1 import Task
from kubechain_common.kube.client import KubeClient, ListPage
from kubechain_common.kube.deep_json import load
from kubechain_common.kube.errors import GoneError, UnavailableError
from kubechain_common.kube.informer import Informer
from kubechain_common.kube.watch import WatchEvent

RunVirtual = Callable[[Coroutine[Any, Any, Any]], Any]


def raw(name: str, version: int) -> dict[str, Any]:
    metadata = {"namespace": "ns", "name": name, "uid": name, "resourceVersion": str(version)}
    return {"metadata": metadata, "spec": {"agentRef": {"name": "x"}, "userMessage": "m"}}


class ScriptedApi:
    """Answers lists from a script; each watch plays its events, or pauses for seconds, then closes or raises."""

    def __init__(
        self, lists: Sequence[ListPage | Exception], watches: Sequence[Sequence[WatchEvent | Exception | float]]
    ) -> None:
        self.lists = list(lists)
        self.watches = list(watches)
        self.asked: list[tuple[str, float]] = []

    def _note(self, what: str) -> None:
        self.asked.append((what, asyncio.get_running_loop().time()))

    async def list_page(
        self, path: str, *, limit: int, continue_token: str, label_selector: str, field_selector: str
    ) -> ListPage:
        self._note(" ".join(word for word in ("list", continue_token, label_selector, field_selector) if word))
        answer = self.lists.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    @asynccontextmanager
    async def watch(self, path: str, params: Mapping[str, str]) -> AsyncIterator[AsyncIterator[WatchEvent]]:
        selectors = (params.get("labelSelector"), params.get("fieldSelector"))
        self._note(" ".join(word for word in ("watch", params["resourceVersion"], *selectors) if word))
        yield self._play(self.watches.pop(0) if self.watches else None)

    async def _play(self, events: Sequence[WatchEvent | Exception | float] | None) -> AsyncIterator[WatchEvent]:
        if events is None:
            await asyncio.Event().wait()
        for event in events or ():
            if isinstance(event, float):
                await asyncio.sleep(event)
                continue
            if isinstance(event, Exception):
                raise event
            yield event


def follow(
    run_virtual: RunVirtual,
    api: ScriptedApi,
    *,
    seconds: float = 60,
    labels: str = "",
    fields: str = "",
    pack_after: float | None = None,
) -> tuple[Informer[Task], list[str]]:
    seen: list[str] = []

    async def scenario() -> Informer[Task]:
        informer = Informer(
            cast("KubeClient", api), Task, label_selector=labels, field_selector=fields, pack_after=pack_after
        )
        informer.add_handler(lambda change: seen.append(f"{change.kind} {change.obj.name}"))
        async with asyncio.TaskGroup() as group:
            run = group.create_task(informer.run())
            # Keeps virtual time from running out while the last watch is silent.
            await asyncio.sleep(seconds)
            run.cancel()
        return informer

    return run_virtual(scenario()), seen


def test_pages_are_put_together(run_virtual: RunVirtual) -> None:
    api = ScriptedApi([ListPage([raw("a", 1)], "9", "t1"), ListPage([raw("b", 2)], "9", "")], [])
    _, seen = follow(run_virtual, api)
    assert [what for what, _ in api.asked] == ["list", "list t1", "watch 9"]
    assert seen == ["added a", "added b"]


def test_an_object_that_is_nested_too_deeply_does_not_keep_the_others_away(run_virtual: RunVirtual) -> None:
    """The API server takes ten times as many levels as a parser, and a list or watch that ends at one never ends."""
    deep = raw("deep", 2)
    deep["spec"]["contextWindow"] = [{"role": "user", "content": "x", "providerData": {"x": None}}]
    text = json.dumps(deep).replace('"x": null', f'"x": {"[" * 1100}{"]" * 1100}')
    api = ScriptedApi(
        [ListPage(load(f"[{json.dumps(raw('a', 1))}, {text}, {json.dumps(raw('b', 3))}]".encode()), "4", "")],
        [[WatchEvent("DELETED", load(text.replace('"resourceVersion": "2"', '"resourceVersion": "5"').encode()))]],
    )
    informer, seen = follow(run_virtual, api, pack_after=1)
    assert seen == ["added a", "added deep", "added b", "deleted deep"]
    assert [task.name for task in informer.list()] == ["a", "b"]


def test_lists_and_watches_ask_for_the_labels_and_fields(run_virtual: RunVirtual) -> None:
    api = ScriptedApi([ListPage([], "1", "")], [])
    follow(run_virtual, api, labels="x", fields="y!=")
    assert [what for what, _ in api.asked] == ["list x y!=", "watch 1 x y!="]


def test_a_list_whose_token_expired_is_begun_again(run_virtual: RunVirtual) -> None:
    pages: list[ListPage | Exception] = [
        ListPage([raw("a", 1)], "9", "t1"),
        GoneError("expired"),
        ListPage([raw("b", 10)], "11", ""),
    ]
    api = ScriptedApi(pages, [])
    informer, seen = follow(run_virtual, api)
    assert seen == ["added a", "added b", "deleted a"]
    assert informer.has_synced.is_set()


def test_an_older_history_replaces_everything(run_virtual: RunVirtual) -> None:
    api = ScriptedApi(
        [ListPage([raw("a", 100), raw("b", 101)], "200", ""), ListPage([raw("b", 5)], "6", "")],
        [[GoneError("lost")]],
    )
    informer, seen = follow(run_virtual, api)
    assert seen == ["added a", "added b", "deleted a", "deleted b", "added b"]
    assert [task.metadata.resource_version for task in informer.list()] == ["5"]


def test_a_watch_that_closes_at_once_is_not_hammered(run_virtual: RunVirtual) -> None:
    api = ScriptedApi([ListPage([], "1", "")], [[] for _ in range(1000)])
    follow(run_virtual, api, seconds=30)
    assert 30 < len(api.asked) < 150


def test_a_history_that_is_always_lost_is_not_listed_in_a_hot_loop(run_virtual: RunVirtual) -> None:
    api = ScriptedApi([ListPage([], "1", "")] * 1000, [[GoneError("lost")] for _ in range(1000)])
    follow(run_virtual, api, seconds=30)
    assert len(api.asked) < 300


def test_the_watch_goes_on_from_the_last_bookmark(run_virtual: RunVirtual) -> None:
    bookmark = WatchEvent("BOOKMARK", {"metadata": {"resourceVersion": "50"}})
    api = ScriptedApi([ListPage([], "1", "")], [[bookmark, UnavailableError("cut")]])
    follow(run_virtual, api)
    assert [what for what, _ in api.asked] == ["list", "watch 1", "watch 50"]


def test_a_watch_of_a_kind_without_objects_may_be_silent_to_its_end(
    run_virtual: RunVirtual, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported: list[str] = []
    monkeypatch.setattr(Informer, "_report", lambda self, error: reported.append(str(error)))
    api = ScriptedApi([ListPage([], "1", "")], [[30.0, UnavailableError("silent")], [UnavailableError("cut")]])
    follow(run_virtual, api)
    assert reported == ["cut"]


def test_an_error_in_the_first_list_is_waited_out(run_virtual: RunVirtual) -> None:
    api = ScriptedApi([UnavailableError("away")] * 5 + [ListPage([raw("a", 1)], "1", "")], [])
    informer, _ = follow(run_virtual, api)
    assert informer.has_synced.is_set()
    synced_at = api.asked[-1][1]
    assert synced_at < 3


def test_the_servers_retry_after_is_honoured(run_virtual: RunVirtual) -> None:
    api = ScriptedApi([UnavailableError("busy", retry_after=7), ListPage([], "1", "")], [])
    follow(run_virtual, api)
    assert api.asked[1][1] >= 7
