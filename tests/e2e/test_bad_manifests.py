"""Manifests that no schema can refuse (tests/corpus/met): each is met with a status, a sentence and an event.

Their ``# status:``, ``# detail:`` and ``# event:`` lines say with which. Those that are refused are in
tests/integration.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.e2e.support import manifests
from tests.e2e.support.failures import TOLD_SECONDS
from tests.e2e.support.scripts import in_turns
from tests.e2e.support.tables import read_events
from tests.e2e.support.workspace import Workspace

from kubechain_cli.scripted_llm import Reply
from kubechain_common.testing.eventually import eventually

pytestmark = pytest.mark.e2e

CORPUS = Path(__file__).resolve().parents[1] / "corpus" / "met"
KINDS = ("llm", "mcpserver", "agent", "task", "taskruntoolcall", "events")
SECONDS = 30.0


def read_expectations() -> dict[tuple[str, str], dict[str, str]]:
    """What is expected, by (kind in small letters, name): a file is called after both."""
    found = {}
    for path in sorted(CORPUS.glob("*.yaml")):
        kind, _, name = path.stem.partition("-")
        lines = [line for line in path.read_text().splitlines() if line.startswith("# ")]
        found[kind, name] = dict(line.removeprefix("# ").split(": ", 1) for line in lines)
    return found


def test_what_no_schema_refuses_is_met_with_a_sentence(workspace: Workspace) -> None:
    expected = read_expectations()
    assert len(expected) >= 30
    workspace.kubectl("apply", "-f", str(CORPUS))

    def find_unmet() -> list[str]:
        items = [item for kind in KINDS for item in workspace.kubectl.list(kind)]
        status = {(i["kind"].lower(), i["metadata"]["name"]): i.get("status", {}) for i in items}
        told = {
            (i["involvedObject"]["kind"].lower(), i["involvedObject"]["name"], i["reason"])
            for i in items
            if i["kind"] == "Event"
        }
        return [
            f"{key}: {status.get(key)}"
            for key, want in expected.items()
            if status[key].get("status") != want["status"]
            or want["detail"] not in status[key].get("statusDetail", "")
            or (*key, want["event"]) not in told
        ]

    left: list[str] = []

    def all_met() -> bool:
        left[:] = find_unmet()
        return not left

    try:
        eventually(all_met, SECONDS, what="every manifest met as its file says")
    except AssertionError as error:
        raise AssertionError("\n".join(left)) from error


def test_a_tool_call_without_an_answer_is_told_before_anybody_is_asked(workspace: Workspace) -> None:
    llm = workspace.serve_llm(in_turns(Reply("done")))
    workspace.apply_agent(llm)
    call = {"id": "call_1", "type": "function", "function": {"name": "fetch", "arguments": "{}"}}
    window = [{"role": "user", "content": "hi"}, {"role": "assistant", "toolCalls": [call]}]
    spec = {"agentRef": {"name": "my-assistant"}, "contextWindow": window}
    workspace.kubectl.apply(manifests.build("Task", "unanswered", spec))
    status = workspace.kubectl.finish("unanswered", "Failed")["status"]
    assert status["statusDetail"].startswith('The context window has no answer to tool call "call_1" (fetch): add a')
    assert len(list(llm.requests)) == 0
    eventually(
        lambda: "ValidationFailed" in {e.reason for e in read_events(workspace.kubectl("describe", "task/unanswered"))},
        TOLD_SECONDS,
        what="an event that tells it",
    )


def test_a_key_with_a_newline_at_its_end_is_used_without_it(workspace: Workspace) -> None:
    llm = workspace.serve_llm(in_turns(Reply("done")), require_key=workspace.key)
    workspace.kubectl.apply(
        manifests.secret("openai", OPENAI_API_KEY=workspace.key + "\n"), manifests.llm(llm.url), manifests.agent()
    )
    assert workspace.run_task("newline", "hi")["status"]["output"] == "done"
