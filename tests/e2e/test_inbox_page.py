"""The inbox page in a real browser: people sign in, see what waits as it comes, and answer it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Page, expect
from tests.e2e.support import manifests
from tests.e2e.support.chromium import keep_screenshot, running_chromium
from tests.e2e.support.inbox import Inbox, open_page, sign_in
from tests.e2e.support.obedient import finish, obey, start
from tests.e2e.support.tables import read_events
from tests.e2e.support.workspace import Workspace

from kubechain_common.testing.eventually import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

PHONE = 360
SOON = 10.0
HOSTILE = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>'


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with running_chromium() as browser:
        yield browser


@pytest.fixture
def inbox(chromium: Browser, workspace: Workspace) -> Inbox:
    return Inbox(workspace)


@pytest.fixture
def token(inbox: Inbox) -> str:
    """Of alice, who may see and decide."""
    return inbox.add_approver("alice")


def open_request(page: Page, words: str) -> None:
    page.locator("#list button", has_text=words).click()
    page.locator("#request-title").wait_for()


def assert_fits(page: Page) -> None:
    """Nothing is wider than the screen."""
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


def test_a_request_arrives_live_and_runs_with_edited_arguments(inbox: Inbox, token: str, chromium: Browser) -> None:
    with open_page(chromium, inbox.url) as page:
        sign_in(page, token)
        expect(page.locator("#empty")).to_contain_text("Nothing waits for you")
        keep_screenshot(page, "desktop-light-empty")
        inbox.ask_approval("edited", {"number": 12345678901234567890, "size": 30})
        page.locator("#list button").wait_for()  # without a reload
        expect(page.locator("#announcer")).to_contain_text("New request: mail__text")
        expect(page.locator("#arguments pre")).to_contain_text("12345678901234567890")
        expect(page.locator(".facts")).to_contain_text("Unanswered: rejected")
        expect(page.locator(".facts .soon")).to_contain_text("in ")
        expect(page.locator(".facts")).to_contain_text("my-assistant")
        page.locator("#conversation summary").click()
        expect(page.locator("#conversation")).to_contain_text("Write to everybody who is late")

        page.get_by_role("button", name="Edit").click()
        page.locator("#editor").fill('{"number": 7, "size"')
        expect(page.locator("#editor-problem")).to_contain_text("Not valid JSON")
        expect(page.locator("#approve")).to_have_attribute("aria-disabled", "true")
        page.locator("#editor").fill('{"number": 7, "size": 20}')
        page.get_by_role("button", name="Approve with changes").click()
        expect(page.locator("#settled")).to_contain_text("Approved by you (page)")
        expect(page.locator(".versions")).to_contain_text("12345678901234567890")
        expect(page.locator(".versions")).to_contain_text('"number": 7')

        page.get_by_role("tab", name="History").click()
        expect(page.locator("#list button")).to_contain_text("Approved by you")
    done = inbox.finish("edited", "Succeeded")
    assert done["status"]["result"] == "this is line after l"
    decision = done["spec"]["decision"]
    assert (decision["by"], decision["via"], decision["approved"]) == (inbox.user("alice"), "page", True)
    assert decision["at"]
    assert json.loads(decision["arguments"]) == {"number": 7, "size": 20}
    assert json.loads(done["spec"]["arguments"])["number"] == 12345678901234567890


def test_a_rejection_tells_the_model_why_and_the_other_tab_sees_it_go(
    inbox: Inbox, token: str, chromium: Browser
) -> None:
    inbox.ask_approval("rejected", {"number": 1, "size": 10})
    bob = inbox.add_approver("bob")
    with open_page(chromium, inbox.url) as page, open_page(chromium, inbox.url) as other:
        sign_in(page, token)
        sign_in(other, bob)
        expect(other.locator("#approve")).to_be_visible()
        page.locator("#words").fill("Not before Monday.")
        page.get_by_role("button", name="Reject").click()
        expect(page.locator("#settled")).to_contain_text("Rejected by you")
        expect(other.locator("#settled")).to_contain_text(f"Rejected by {inbox.user('alice')}")
        expect(other.locator("#settled")).to_contain_text("Not before Monday.")
        expect(other.locator("#settled time")).to_have_attribute("datetime", re.compile("T.*Z"))
        expect(other.locator("#approve")).to_have_count(0)
        expect(other.locator("#list button")).to_have_count(0)
    assert inbox.finish("rejected", "ToolCallRejected")["status"]["result"] == "Not before Monday."


def test_a_question_is_answered(inbox: Inbox, token: str, chromium: Browser) -> None:
    inbox.ask_question("question", "Which colour shall the house have?")
    with open_page(chromium, inbox.url) as page:
        sign_in(page, token)
        expect(page.locator("#question")).to_have_text("Which colour shall the house have?")
        page.get_by_role("button", name="Send answer").click()
        expect(page.locator("#problem")).to_have_text("Write an answer first.")
        page.get_by_label("Your answer").fill("Green.")
        page.keyboard.press("Control+Enter")
        expect(page.locator("#settled")).to_contain_text("Answered by you")
    done = inbox.finish("question", "Succeeded")
    assert done["status"]["result"] == "Green."
    assert done["spec"]["response"]["by"] == inbox.user("alice")


def test_answers_with_kubectl_show_on_the_page(inbox: Inbox, token: str, chromium: Browser) -> None:
    inbox.ask_approval("in-view", {"number": 1, "size": 10})
    with open_page(chromium, inbox.url) as page:
        sign_in(page, token)
        expect(page.locator("#arguments pre")).to_contain_text('"number": 1')
        inbox.ask_approval("beside", {"number": 2, "size": 10})
        expect(page.locator("#list button")).to_have_count(2)
        answer_with_kubectl(inbox, "beside", approved=False)
        expect(page.locator("#notes")).to_contain_text("Rejected by")
        expect(page.locator("#notes time")).to_have_count(1)
        expect(page.locator("#list button")).to_have_count(1)
        expect(page.locator("#approve")).to_be_visible()  # what is in view stays as it is
        answer_with_kubectl(inbox, "in-view", approved=True)
        expect(page.locator("#settled")).to_contain_text("Approved by")
        expect(page.locator("#settled")).to_contain_text("(kubectl)")


def answer_with_kubectl(inbox: Inbox, name: str, *, approved: bool) -> None:
    patch = json.dumps({"spec": {"decision": {"approved": approved}}})
    inbox.kubectl("patch", "taskruntoolcall", name, "--type=merge", "-p", patch)


def test_everything_works_by_keyboard_alone(inbox: Inbox, token: str, chromium: Browser) -> None:
    inbox.ask_approval("first", {"number": 1, "size": 10})
    inbox.ask_approval("second", {"number": 2, "size": 10})
    with open_page(chromium, inbox.url) as page:
        keys = page.keyboard
        expect(page.locator("#token")).to_be_focused()
        keys.insert_text(token)
        keys.press("Tab")
        expect(page.get_by_role("button", name="Sign in")).to_be_focused()
        keys.press("Enter")
        page.locator("#approve").wait_for()

        keys.press("j")
        expect(page.locator("#list [aria-current=true]")).to_contain_text('"number": 2')
        expect(page.locator("#arguments pre")).to_contain_text('"number": 2')
        expect(page.locator("#detail")).to_be_focused()
        keys.press("a")
        expect(page.locator("#approve")).to_be_focused()
        assert page.evaluate("getComputedStyle(document.activeElement).outlineWidth") == "3px"
        keys.press("Enter")
        expect(page.locator("#settled")).to_contain_text("Approved by you")
        expect(page.get_by_role("button", name="Next request")).to_be_focused()
        keys.press("Enter")
        expect(page.locator("#arguments pre")).to_contain_text('"number": 1')
        keys.press("e")
        expect(page.locator("#editor")).to_be_focused()
        keys.press("Escape")
        keys.press("m")
        keys.insert_text("a r j")  # no shortcuts while somebody writes
        keys.press("Tab")
        expect(page.locator("#approve")).to_be_focused()
        keys.press("Tab")
        expect(page.locator("#reject")).to_be_focused()
        keys.press("Enter")
        expect(page.locator("#settled")).to_contain_text("Rejected by you")
        keys.press("?")
        expect(page.get_by_role("dialog")).to_be_visible()
        keep_screenshot(page, "desktop-light-shortcuts")
        keys.press("Escape")
        expect(page.get_by_role("dialog")).to_be_hidden()
        keys.press("h")
        expect(page.locator("#list button")).to_have_count(2)
    assert inbox.finish("second", "Succeeded")["spec"]["decision"]["approved"] is True
    assert inbox.finish("first", "ToolCallRejected")["spec"]["decision"]["comment"] == "a r j"


def test_hostile_text_is_inert_and_hidden_characters_show(inbox: Inbox, token: str, chromium: Browser) -> None:
    inbox.ask_approval("hostile", {"number": HOSTILE, HOSTILE: 1, "size": "safe\u202egpj.exe"})
    inbox.ask_question("hostile-question", f"{HOSTILE} \u200bok?")
    with open_page(chromium, inbox.url) as page:
        sign_in(page, token)
        open_request(page, "mail__text")
        expect(page.locator("#arguments pre")).to_contain_text("<script>")
        expect(page.locator("#arguments pre")).to_contain_text("safe\\u202egpj.exe")
        open_request(page, "Question")
        expect(page.locator("#question")).to_contain_text("<script>")
        expect(page.locator("#question")).to_contain_text("\\u200bok?")
        assert page.locator("#inbox img, #inbox script").count() == 0
        assert page.evaluate("window.hacked") is None
        assert (
            page.evaluate(  # the policy holds even where our code would fail
                "() => { try { document.body.innerHTML = '<b>x</b>'; return 'taken'; } catch { return 'refused'; } }"
            )
            == "refused"
        )


@pytest.mark.parametrize("given", ["", "not-a-token", "expired"])
def test_without_a_good_token_nobody_comes_in(inbox: Inbox, chromium: Browser, given: str) -> None:
    with open_page(chromium, inbox.url) as page:
        expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
        expect(page.locator("#inbox")).to_be_hidden()
        if given:
            page.get_by_label("Token").fill(given)
            page.get_by_role("button", name="Sign in").click()
            expect(page.get_by_role("alert")).to_contain_text("The API server does not take this token")
        answer = page.request.get(f"{inbox.url}/api/v1/requests")
        assert answer.status == 401


def test_without_the_right_a_request_can_be_seen_and_not_answered(inbox: Inbox, chromium: Browser) -> None:
    call = inbox.ask_approval("refused", {"number": 1, "size": 10})
    viewer = inbox.add_viewer("viewer")
    with open_page(chromium, inbox.url) as page:
        sign_in(page, viewer)
        expect(page.locator("#forbidden")).to_contain_text("not answer it")
        keep_screenshot(page, "desktop-light-forbidden")
        expect(page.locator("#approve")).to_have_count(0)
        status = page.evaluate(
            """async ([path, uid]) => (await fetch(path, {method: "POST", headers: {"X-KubeChain-Page": "1"},
               body: JSON.stringify({uid, approved: true})})).status""",
            [f"/api/v1/requests/{inbox.namespace}/refused/decision", call["metadata"]["uid"]],
        )
        assert status == 403
    assert_untouched(inbox, "refused")
    assert_told(inbox, "refused", inbox.user("viewer"))


def test_a_forged_cookie_and_a_foreign_origin_are_refused(inbox: Inbox, token: str, chromium: Browser) -> None:
    inbox.ask_approval("forged", {"number": 1, "size": 10})
    path = f"{inbox.url}/api/v1/requests/{inbox.namespace}/forged/decision"
    with open_page(chromium, inbox.url) as page:
        sign_in(page, token)
        (cookie,) = page.context.cookies()
        assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
        assert token not in cookie["value"]
        # A form of another site could send the cookie's request, but not the header.
        bare = page.request.post(path, data={"approved": True})
        assert (bare.status, "X-KubeChain-Page" in bare.json()["error"]) == (403, True)
        text = str(cookie["value"])
        changed = ("B" if text[0] != "B" else "C") + text[1:]
        page.context.add_cookies([{"name": cookie["name"], "value": changed, "url": inbox.url}])
        forged = page.request.post(path, data={"approved": True}, headers={"X-KubeChain-Page": "1"})
        assert forged.status == 401
    assert_untouched(inbox, "forged")
    assert_told(inbox, "forged", "Refused an answer through page")


def test_another_namespace_stays_out_of_sight(
    new_workspace: Callable[[], Workspace], inbox: Inbox, token: str, chromium: Browser
) -> None:
    foreign = Inbox(new_workspace())
    foreign.ask_approval("namesake", {"number": 2, "size": 10})
    inbox.ask_approval("namesake", {"number": 1, "size": 10})
    with open_page(chromium, inbox.url) as page:
        sign_in(page, token)
        expect(page.locator("#list button")).to_have_count(1)
        expect(page.locator("#list button")).to_contain_text(inbox.namespace)
        there = f"{inbox.url}/api/v1/requests/{foreign.namespace}/namesake"
        header = {"X-KubeChain-Page": "1"}
        assert page.request.get(there).status == 403
        assert page.request.post(f"{there}/decision", data={"approved": True}, headers=header).status == 403
        page.goto(f"{inbox.url}/#{foreign.namespace}/namesake")
        expect(page.locator("#detail")).to_contain_text("You may not see tool calls in namespace")
    assert_untouched(foreign, "namesake")
    assert_told(foreign, "namesake", inbox.user("alice"))


def test_a_link_leads_to_its_request_through_the_sign_in(inbox: Inbox, token: str, chromium: Browser) -> None:
    inbox.ask_approval("first", {"number": 1, "size": 10})
    inbox.ask_approval("linked", {"number": 2, "size": 10})
    with open_page(chromium, f"{inbox.url}/#{inbox.namespace}/linked") as page:
        sign_in(page, token)
        expect(page.locator("#arguments pre")).to_contain_text('"number": 2')
        expect(page.locator("#list [aria-current=true]")).to_contain_text('"number": 2')


def test_a_session_outlives_the_service(inbox: Inbox, token: str, chromium: Browser) -> None:
    inbox.ask_approval("before", {"number": 1, "size": 10})
    with open_page(chromium, inbox.url) as page:
        sign_in(page, token)
        expect(page.locator("#approve")).to_be_visible()
        inbox.workspace.kill("human-bridge")
        page.locator("#live[data-state=live]").wait_for()
        inbox.ask_approval("after", {"number": 2, "size": 10})
        expect(page.locator("#list button")).to_have_count(2)  # nobody had to sign in or reload
        page.get_by_role("button", name="Approve").click()
        expect(page.locator("#settled")).to_contain_text("Approved by you")
    inbox.finish("before", "Succeeded")


def test_signing_out_ends_the_session(inbox: Inbox, token: str, chromium: Browser) -> None:
    with open_page(chromium, inbox.url) as page:
        sign_in(page, token)
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
        page.reload()
        expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


def test_a_task_goes_on_after_the_page_has_answered(inbox: Inbox, token: str, chromium: Browser) -> None:
    llm = inbox.workspace.serve_llm(obey)
    inbox.kubectl.apply(manifests.llm(llm.url, "obedient"))
    inbox.kubectl.apply(manifests.agent("worker", ["mail"], llmRef={"name": "obedient"}))
    inbox.kubectl.wait("agent/worker", timeout=60)
    turn = [("mail__text", '{"number": 5, "size": 9}')]
    start(inbox.workspace, "whole", turn, agent="worker")
    with open_page(chromium, inbox.url) as page:
        sign_in(page, token)
        expect(page.locator(".facts")).to_contain_text("worker")
        page.locator("#conversation summary").click()
        expect(page.locator("#conversation")).to_contain_text('mail__text {"number": 5, "size": 9}')
        page.get_by_role("button", name="Approve").click()
        expect(page.locator("#settled")).to_contain_text("Approved by you")
    assert finish(inbox.workspace, llm, "whole", turn) == ["this is l"]


def test_programs_send_their_token_with_each_request(inbox: Inbox, token: str, chromium: Browser) -> None:
    inbox.ask_approval("by-program", {"number": 3, "size": 10})
    with open_page(chromium, inbox.url) as page:
        bearer = {"Authorization": f"Bearer {token}"}
        listed = page.request.get(f"{inbox.url}/api/v1/requests", headers=bearer).json()
        assert [(r["name"], r["agent"], r["task"]) for r in listed["requests"]] == [
            ("by-program", "my-assistant", "hello")
        ]
        path = f"{inbox.url}/api/v1/requests/{inbox.namespace}/by-program"
        wrong = page.request.post(f"{path}/decision", data={"approved": True, "arguments": "[1]"}, headers=bearer)
        assert (wrong.status, wrong.json()["error"]) == (422, "The arguments have to be a JSON object, not an array.")
        assert page.request.post(f"{path}/response", data={"message": "Yes"}, headers=bearer).status == 409
        assert page.request.post(f"{path}/decision", data={"approved": True}, headers=bearer).status == 200
        late = page.request.post(f"{path}/decision", data={"approved": False}, headers=bearer)
        assert late.status == 409
        assert f"Approved by {inbox.user('alice')}" in late.json()["error"]
    inbox.finish("by-program", "Succeeded")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [PHONE, 1280], ids=["phone", "desktop"])
def test_it_fits_the_screen(inbox: Inbox, token: str, chromium: Browser, width: int, dark: bool) -> None:
    name = f"{'phone' if width == PHONE else 'desktop'}-{'dark' if dark else 'light'}"
    inbox.ask_approval(
        "mail",
        {
            "number": 42,
            "size": 160,
            "to": ["han@example.com", "leia@example.com"],
            "subject": "About the rent",
            "body": "Dear all,\nthe rent of this month has not arrived yet. " * 3,
            "token": "x" * 300,
        },
    )
    inbox.ask_question("colour", "The painter comes tomorrow. Which colour shall the front door have?")
    inbox.ask_approval("other", {"number": 7, "size": 12})
    with open_page(chromium, inbox.url, width=width, height=780 if width == PHONE else 900, dark=dark) as page:
        assert_fits(page)
        keep_screenshot(page, f"{name}-1-sign-in")
        sign_in(page, token)
        expect(page.locator("#list button")).to_have_count(3)
        assert_fits(page)
        keep_screenshot(page, f"{name}-2-list")
        open_request(page, "About the rent")
        page.locator("#conversation summary").click()
        assert_fits(page)
        keep_screenshot(page, f"{name}-3-request")
        page.get_by_role("button", name="Edit").click()
        page.locator("#editor").fill('{"number": 42, "size": ')
        assert_fits(page)
        keep_screenshot(page, f"{name}-4-edit")
        page.locator("#editor").fill('{"number": 42, "size": 16}')
        page.get_by_role("button", name="Approve with changes").click()
        expect(page.locator("#settled")).to_contain_text("Approved by you")
        assert_fits(page)
        keep_screenshot(page, f"{name}-5-settled")
        if width == PHONE:
            page.get_by_role("button", name="All requests").click()
        open_request(page, "Question")
        assert_fits(page)
        keep_screenshot(page, f"{name}-6-question")
        page.get_by_label("Your answer").fill("A dark green, please.")
        page.get_by_role("button", name="Send answer").click()
        expect(page.locator("#settled")).to_contain_text("Answered by you")
        if width == PHONE:
            page.get_by_role("button", name="All requests").click()
        page.get_by_role("tab", name="History").click()
        expect(page.locator("#list button")).to_have_count(2)
        assert_fits(page)
        keep_screenshot(page, f"{name}-7-history")


def assert_untouched(inbox: Inbox, name: str) -> None:
    call = inbox.call(name)
    assert "decision" not in call["spec"]
    assert call["status"]["status"] == "AwaitingHumanApproval"


def assert_told(inbox: Inbox, name: str, who: str) -> None:
    def told() -> bool:
        events = read_events(inbox.kubectl("describe", "taskruntoolcall", name))
        return any(event.reason == "DecisionRefused" and who in event.message for event in events)

    eventually(told, SOON, what=f"an event about what {who} tried")
