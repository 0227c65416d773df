"""The list of the inbox page in a real browser: true where it does not show all, and read again where that failed.

The page's API is the test's own, so that a handful of requests are more than one list holds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, Route, expect
from tests.e2e.support.chromium import running_chromium
from tests.e2e.support.inbox import open_page

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

URL = "http://inbox.example/"
LISTED = 2
STATIC = files("kubechain_human_bridge.web.inbox") / "static"
TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}

EVENTS = """
window.EventSource = class extends EventTarget {
  constructor() { super(); window.live = this; setTimeout(() => tell("hello", {})); }
  close() {}
};
window.EventSource.CLOSED = 2;
window.tell = (kind, data) => live.dispatchEvent(new MessageEvent(kind, {data: JSON.stringify(data)}));
"""


def build_request(number: int) -> dict[str, Any]:
    """As the API lists and shows it."""
    return {
        "namespace": "default", "name": f"call-{number}", "uid": f"uid-{number}", "kind": "approval",
        "tool": "mail__text", "agent": "my-assistant", "task": f"task-{number}", "preview": "{}",
        "arguments": "{}", "waiting": True, "mayDecide": True, "answer": None,
        "history": [], "conversation": {"messages": [], "missing": "", "omitted": 0},
    }  # fmt: skip


@dataclass
class Api:
    """``waiting`` are the numbers of the requests that wait, oldest first."""

    waiting: list[int]
    away: bool = False
    page: Page = field(init=False)

    def handle(self, route: Route) -> None:
        path = urlsplit(route.request.url).path
        if not path.startswith("/api/"):
            name = path.strip("/") or "inbox.html"
            kind = TYPES[name.rpartition(".")[2]]
            return route.fulfill(body=(STATIC / name).read_bytes(), content_type=f"{kind}; charset=utf-8")
        if path.endswith("/session"):
            return route.fulfill(json={"user": "alice"})
        if path.endswith("/requests"):
            if self.away:
                return route.fulfill(status=503, json={"error": "The API server does not answer right now."})
            listed = [build_request(number) for number in self.waiting[:LISTED]]
            return route.fulfill(json={"requests": listed, "total": len(self.waiting)})
        number = int(path.removesuffix("/decision").rpartition("-")[2])
        if path.endswith("/decision"):
            self.waiting.remove(number)
        return route.fulfill(json=build_request(number) | {"waiting": number in self.waiting})

    def tell(self, kind: str, *numbers: int) -> dict[str, Any]:
        """Tells the page, and returns what it shows at once."""
        told = "".join(f"tell('{kind}', {json.dumps(build_request(number))});" for number in numbers)
        shown: dict[str, Any] = self.page.evaluate(
            f"() => {{ {told} return {{count: document.getElementById('count').textContent,"
            " more: document.getElementById('more').textContent, empty: !document.getElementById('empty').hidden,"
            " listed: [...document.querySelectorAll('#list button')].map((row) => row.dataset.key)}; }"
        )
        return shown


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with running_chromium() as browser:
        yield browser


@contextmanager
def open_inbox(chromium: Browser, api: Api) -> Iterator[Page]:
    """The page as somebody sees it who is signed in; its clock can be put forward."""
    with open_page(chromium, "about:blank") as page:
        api.page = page
        page.clock.install()
        page.add_init_script(EVENTS)
        page.route("**/*", api.handle)
        page.goto(URL)
        yield page


def expect_listed(page: Page, *numbers: int) -> None:
    expect(page.locator("#list .line", has_text="task-")).to_have_text(
        [f"my-assistant · task-{n} · default" for n in numbers]
    )


def test_what_was_beyond_the_end_of_the_list_comes_into_it(chromium: Browser) -> None:
    api = Api([1, 2, 3, 4, 5])
    with open_inbox(chromium, api) as page:
        expect_listed(page, 1, 2)
        expect(page.locator("#more")).to_have_text("and 3 newer, shown once these are answered")
        api.waiting = [3, 4, 5]
        shown = api.tell("left", 1, 2)
        assert (shown["count"], shown["listed"], shown["empty"]) == ("3", [], False)
        page.clock.fast_forward(2000)
        expect_listed(page, 3, 4)
        expect(page.locator("#more")).to_have_text("and 1 newer, shown once these are answered")


def test_the_list_keeps_its_order_and_its_count_beside_what_it_does_not_show(chromium: Browser) -> None:
    api = Api([1, 2, 3])
    with open_inbox(chromium, api) as page:
        expect_listed(page, 1, 2)
        api.waiting = [1, 2, 3, 4]
        shown = api.tell("arrived", 4)
        assert (shown["count"], shown["listed"]) == ("4", ["default/call-1", "default/call-2"])
        api.waiting = [1, 2, 4]
        assert api.tell("left", 3)["count"] == "3"
        page.clock.fast_forward(2000)
        expect(page.locator("#more")).to_have_text("and 1 newer, shown once these are answered")


def test_an_answer_is_counted_once_and_the_next_request_follows(chromium: Browser) -> None:
    api = Api([1, 2, 3])
    with open_inbox(chromium, api) as page:
        expect(page.locator("#request-title")).to_be_visible()
        page.get_by_role("button", name="Approve").click()
        expect(page.locator("#settled")).to_be_visible()
        assert api.tell("left", 1)["count"] == "2"
        page.clock.fast_forward(2000)
        expect_listed(page, 2, 3)
        expect(page.locator("#more")).to_be_hidden()


def test_words_that_are_being_written_survive_a_new_reading_of_the_list(chromium: Browser) -> None:
    api = Api([1, 2, 3, 4])
    with open_inbox(chromium, api) as page:
        expect_listed(page, 1, 2)
        page.evaluate("location.hash = '#default/call-4'")  # beyond the end of the list
        expect(page.locator(".facts")).to_contain_text("task-4")
        page.locator("#words").fill("Not before Monday.")
        api.waiting.remove(1)
        api.tell("left", 1)
        with page.expect_response("**/call-4"):
            page.clock.fast_forward(2000)
        expect_listed(page, 2, 3)
        expect(page.locator("#words")).to_have_value("Not before Monday.")


def test_a_list_that_could_not_be_read_is_read_again(chromium: Browser) -> None:
    api = Api([1, 2], away=True)
    with open_inbox(chromium, api) as page:
        expect(page.locator("#banner")).to_have_text("The API server does not answer right now.")
        api.away = False
        page.clock.fast_forward(5000)
        expect_listed(page, 1, 2)
        expect(page.locator("#banner")).to_be_hidden()
