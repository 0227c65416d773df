"""People with and without rights, calls that wait for them, and the page where they answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Page
from tests.e2e.support import manifests
from tests.e2e.support.chromium import TIMEOUT_MS
from tests.e2e.support.workspace import Workspace

from kubechain_common.testing.eventually import eventually

SOON = 10.0
PEOPLE = {"type": "inbox", "timeoutSeconds": 295, "onTimeout": "Reject"}
"""Long enough for a test, and short enough for the page to mark the deadline."""

GROUP = "kubechain.humanlayer.dev"
RBAC = "rbac.authorization.k8s.io"

Call = dict[str, Any]


class Inbox:
    """A namespace whose Task asks people: tool ``mail__text`` needs approval, ``people`` is asked questions."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.kubectl = workspace.kubectl
        self.namespace = workspace.namespace
        self.url = find_page_url(workspace)
        workspace.apply_agent(workspace.hang_llm())
        self.kubectl.apply(
            manifests.build("ContactChannel", "people", PEOPLE),
            manifests.own_server("mail", "text_server.py", approvalContactChannel={"name": "people"}),
            manifests.task("hello", "Write to everybody who is late, and be kind about it."),
        )

        def has_begun() -> dict[str, Any] | None:
            task = self.kubectl.get("task", "hello")
            return task if task.get("status", {}).get("contextWindow") else None

        task = eventually(has_begun, SOON, what="the Task's conversation")
        assert task is not None
        self._owner = {
            "apiVersion": task["apiVersion"],
            "kind": "Task",
            "name": "hello",
            "uid": task["metadata"]["uid"],
            "controller": True,
        }

    # --- people ---

    def add_approver(self, name: str) -> str:
        """A token of a new service account with the role that comes with the product."""
        return self._add_account(name, {"kind": "ClusterRole", "name": "kubechain-approver"})

    def add_viewer(self, name: str) -> str:
        """A token of a new service account that may see everything here, and answer nothing."""
        return self._add_with_verbs(name, "get", "list", "watch")

    def add_patcher(self, name: str) -> str:
        """A token of a new service account that may change calls as far as RBAC goes, and answer nothing."""
        return self._add_with_verbs(name, "get", "patch", "update")

    def _add_with_verbs(self, name: str, *verbs: str) -> str:
        rules = [{"apiGroups": [GROUP], "resources": ["taskruntoolcalls", "tasks"], "verbs": list(verbs)}]
        self.kubectl.apply({"apiVersion": f"{RBAC}/v1", "kind": "Role", "metadata": {"name": name}, "rules": rules})
        return self._add_account(name, {"kind": "Role", "name": name})

    def _add_account(self, name: str, role: dict[str, str]) -> str:
        subject = {"kind": "ServiceAccount", "name": name, "namespace": self.namespace}
        self.kubectl.apply(
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}},
            {
                "apiVersion": f"{RBAC}/v1",
                "kind": "RoleBinding",
                "metadata": {"name": name},
                "roleRef": {"apiGroup": RBAC, **role},
                "subjects": [subject],
            },
        )
        token = self.kubectl("create", "token", name).strip()
        self.workspace.cluster.secrets.add(token)
        return token

    def user(self, name: str) -> str:
        """How the API server knows the person."""
        return f"system:serviceaccount:{self.namespace}:{name}"

    # --- calls ---

    def ask_approval(
        self, name: str, arguments: dict[str, Any] | str, *, server: str = "mail", tool: str = "text"
    ) -> Call:
        """A call of the tool that waits for approval."""
        text = arguments if isinstance(arguments, str) else json.dumps(arguments)
        target = {"name": server, "tool": tool}
        return self._ask(name, "AwaitingHumanApproval", f"{server}__{tool}", "MCP", target, text)

    def ask_question(self, name: str, message: str) -> Call:
        """A call that waits for an answer."""
        tool, text = "people__human_contact_inbox", json.dumps({"message": message})
        return self._ask(name, "AwaitingHumanInput", tool, "HumanContact", {"name": "people"}, text)

    def _ask(self, name: str, status: str, tool: str, kind: str, target: dict[str, str], arguments: str) -> Call:
        call = manifests.build(
            "TaskRunToolCall",
            name,
            {
                "toolCallId": name,
                "taskRunRef": {"name": "hello"},
                "toolRef": {"name": tool},
                "toolType": kind,
                "target": target,
                "arguments": arguments,
            },
        )
        call["metadata"]["ownerReferences"] = [self._owner]
        self.kubectl.apply(call)

        def waits() -> Call | None:
            found = self.call(name)
            return found if found.get("status", {}).get("status") == status else None

        waiting = eventually(waits, SOON, what=f"call {name} to wait")
        assert waiting is not None
        return waiting

    def call(self, name: str) -> Call:
        return self.kubectl.get("taskruntoolcall", name)

    def finish(self, name: str, phase: str) -> Call:
        """The call once it has ended so."""

        def ended() -> Call | None:
            found = self.call(name)
            return found if found["status"]["phase"] == phase else None

        done = eventually(ended, SOON, what=lambda: f"{name} to end as {phase}: {self.call(name)}")
        assert done is not None
        return done


@contextmanager
def open_page(
    browser: Browser, url: str, *, width: int = 1280, height: int = 860, dark: bool = False
) -> Iterator[Page]:
    """The page in a browser of its own: nobody is signed in. Fails on anything that the page trips over."""
    context: BrowserContext = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light", has_touch=width < 600
    )
    context.set_default_timeout(TIMEOUT_MS)
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda said: errors.append(said.text) if "Content Security Policy" in said.text else None)
    page.goto(url)
    try:
        yield page
    finally:
        context.close()
    assert not errors, errors


def sign_in(page: Page, token: str) -> None:
    """Paste the token, and return once the page is live."""
    page.get_by_label("Token").fill(token)
    page.get_by_role("button", name="Sign in").click()
    page.locator("#live[data-state=live]").wait_for()


def find_page_url(workspace: Workspace) -> str:
    """Where this cluster's human-bridge serves its page."""
    ports = json.loads((workspace.cluster.state_dir / "ports.json").read_text())
    return f"http://127.0.0.1:{ports.get('ports', ports)['human-bridge-page']}"
