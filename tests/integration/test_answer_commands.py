"""`kubechain inbox | approve | reject | respond` as people with and without the right, on a real API server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.integration.people import GROUP, Place, User

pytestmark = pytest.mark.integration

Cli = Callable[..., "subprocess.CompletedProcess[str]"]
Done = subprocess.CompletedProcess


@pytest.fixture
def alice(place: Place) -> User:
    return place.add_user("alice", "kubechain-approver")


@pytest.fixture
def cli(alice: User, tmp_path: Path) -> Cli:
    return as_user(alice, tmp_path)


def as_user(user: User, folder: Path) -> Cli:
    """The command line in the hands of this user."""
    kubeconfig = user.write_kubeconfig(folder / f"{user.full_name.rpartition(':')[2]}.kubeconfig")
    env = {**os.environ, "KUBECONFIG": str(kubeconfig)}

    def run(*arguments: str, input: str | None = None) -> Done[str]:
        command = [sys.executable, "-m", "kubechain_cli", *arguments]
        return subprocess.run(command, env=env, input=input, capture_output=True, text=True, timeout=60, check=False)

    return run


def add_waiting(place: Place, name: str, *, channel_timeout: int | None = None) -> None:
    """A call that waits for approval, with all that the inbox shows of it."""
    for kind, of_name, spec in (
        ("Task", "t", {"agentRef": {"name": "agent-with-fetch"}, "userMessage": "hi"}),
        ("MCPServer", "fetch", {"transport": "stdio", "command": "x", "approvalContactChannel": {"name": "boss"}}),
        ("ContactChannel", "boss", channel_spec(channel_timeout)),
    ):
        body = {"apiVersion": f"{GROUP}/v1alpha1", "kind": kind, "metadata": {"name": of_name}, "spec": spec}
        place.admin("apply", "-f", "-", manifest=body)
    place.add_call(name, arguments='{"url":"https://example.com"}', target={"name": "fetch", "tool": "fetch"})
    place.await_answer(name, "AwaitingHumanApproval")


def channel_spec(timeout: int | None) -> dict[str, Any]:
    return {"type": "inbox"} | ({"timeoutSeconds": timeout, "onTimeout": "Reject"} if timeout else {})


def add_question(place: Place, name: str) -> None:
    place.add_call(name, "HumanContact", arguments='{"message":"Which colour?"}')
    place.await_answer(name, "AwaitingHumanInput")


def test_the_inbox_shows_what_is_asked_and_by_whom(place: Place, cli: Cli) -> None:
    add_waiting(place, "call-1", channel_timeout=10**8)
    add_question(place, "question-1")
    place.add_call("not-waiting")
    shown = cli("inbox", "-n", place.namespace)
    assert shown.returncode == 0, shown.stderr
    row = next(line.split() for line in shown.stdout.splitlines() if " call-1 " in line)
    assert row[:6] == [place.namespace, "call-1", "Approval", "fetch__fetch", "agent-with-fetch", "t"]
    assert row[6].endswith("d")
    assert "(Reject)" in row
    assert '    {"url":"https://example.com"}' in shown.stdout.splitlines()
    assert "    Which colour?" in shown.stdout.splitlines()
    assert "not-waiting" not in shown.stdout
    assert f"kubechain approve call-1 -n {place.namespace}" in shown.stdout


def test_the_inbox_for_scripts(place: Place, cli: Cli) -> None:
    add_waiting(place, "call-1", channel_timeout=60)
    (item,) = json.loads(cli("inbox", "-n", place.namespace, "-o", "json").stdout)
    assert item | {"uid": ""} == {
        "namespace": place.namespace,
        "name": "call-1",
        "uid": "",
        "kind": "Approval",
        "tool": "fetch__fetch",
        "agent": "agent-with-fetch",
        "task": "t",
        "channel": "boss",
        "since": "2026-01-02T03:04:05Z",
        "deadline": "2026-01-02T03:05:05Z",
        "onTimeout": "Reject",
        "arguments": '{"url":"https://example.com"}',
    }


def test_an_empty_inbox_says_so(place: Place, cli: Cli) -> None:
    shown = cli("inbox", "-n", place.namespace)
    assert (shown.returncode, shown.stdout) == (0, "Nothing waits for anybody.\n")


def test_all_namespaces_take_a_right_in_all_of_them(place: Place, cli: Cli) -> None:
    refused = cli("inbox", "-A")
    assert refused.returncode == 1
    assert "cannot list resource" in refused.stderr
    assert "at the cluster scope" in refused.stderr


def test_approve_writes_who_it_was_by_which_road_and_when(place: Place, cli: Cli, alice: User) -> None:
    add_waiting(place, "call-1")
    done = cli("approve", "call-1", "-n", place.namespace, "--comment", "fine")
    assert (done.returncode, done.stdout) == (0, f"Approved call-1 as {alice.full_name}.\n"), done.stderr
    decision = place.spec_of("call-1")["decision"]
    assert decision.pop("at")
    assert decision == {"approved": True, "comment": "fine", "by": alice.full_name, "via": "cli"}


@pytest.mark.parametrize("from_file", [False, True])
def test_approve_with_other_arguments(place: Place, cli: Cli, tmp_path: Path, from_file: bool) -> None:
    add_waiting(place, "call-1")
    text = '{"url": "https://example.org"}'
    (tmp_path / "arguments.json").write_text(text)
    option = f"@{tmp_path}/arguments.json" if from_file else text
    done = cli("approve", "call-1", "-n", place.namespace, "--arguments", option)
    assert done.returncode == 0, done.stderr
    spec = place.spec_of("call-1")
    assert spec["decision"]["arguments"] == text
    assert spec["arguments"] == '{"url":"https://example.com"}'


@pytest.mark.parametrize("arguments", ["{", "[]", "@/no/such/file"])
def test_arguments_that_are_none_decide_nothing(place: Place, cli: Cli, arguments: str) -> None:
    add_waiting(place, "call-1")
    refused = cli("approve", "call-1", "-n", place.namespace, "--arguments", arguments)
    assert refused.returncode == 2
    assert "--arguments" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert "decision" not in place.spec_of("call-1")


def test_reject_tells_the_model_why(place: Place, cli: Cli, alice: User) -> None:
    add_waiting(place, "call-1")
    done = cli("reject", "call-1", "-n", place.namespace, "--comment", "not this site")
    assert (done.returncode, done.stdout) == (0, f"Rejected call-1 as {alice.full_name}.\n"), done.stderr
    assert place.spec_of("call-1")["decision"]["comment"] == "not this site"


def test_what_kubectl_prints_is_a_name(place: Place, cli: Cli) -> None:
    add_waiting(place, "call-1")
    name = place.admin("get", "taskruntoolcall", "-o", "name").stdout.strip()
    assert "/" in name
    assert cli("approve", name, "-n", place.namespace).returncode == 0


def test_respond_from_the_command_line_and_from_standard_input(place: Place, cli: Cli) -> None:
    for name, message, stdin in (("q-1", "blue", None), ("q-2", "-", "dark\nblue")):
        add_question(place, name)
        done = cli("respond", name, message, "-n", place.namespace, input=stdin)
        assert done.returncode == 0, done.stderr
        assert place.spec_of(name)["response"]["message"] == (stdin or message)
    add_question(place, "q-3")
    assert cli("respond", "q-3", " ", "-n", place.namespace).returncode == 2


def test_of_two_who_answer_at_once_one_is_told_who_was_first(place: Place, alice: User, tmp_path: Path) -> None:
    add_waiting(place, "call-1")
    bob = place.add_user("bob", "kubechain-approver")
    both = {user.full_name: as_user(user, tmp_path) for user in (alice, bob)}
    with ThreadPoolExecutor(2) as pool:
        jobs = {who: pool.submit(cli, "approve", "call-1", "-n", place.namespace) for who, cli in both.items()}
    done = {who: job.result() for who, job in jobs.items()}
    (winner,) = [who for who, result in done.items() if result.returncode == 0]
    (loser,) = [result for result in done.values() if result.returncode != 0]
    assert loser.returncode == 1
    assert f"Approved by {winner} at 20" in loser.stderr
    assert "Your answer was not needed any more." in loser.stderr
    assert place.spec_of("call-1")["decision"]["by"] == winner


def test_who_lacks_the_right_is_told_which(place: Place, tmp_path: Path) -> None:
    add_waiting(place, "call-1")
    patcher = place.add_user("patcher", "test-patcher")
    refused = as_user(patcher, tmp_path)("approve", "call-1", "-n", place.namespace)
    assert refused.returncode == 1
    assert f"You ({patcher.full_name}) may not answer call-1" in refused.stderr
    assert "takes the verb decide on taskruntoolcalls" in refused.stderr
    nobody = as_user(place.add_user("nobody"), tmp_path)("approve", "call-1", "-n", place.namespace)
    assert nobody.returncode == 1
    assert 'cannot get resource "taskruntoolcalls"' in nobody.stderr
    assert "decision" not in place.spec_of("call-1")


def ended(place: Place) -> None:
    place.set_status("call-1", phase="Succeeded", status="Succeeded", statusDetail="Tool executed")


def cancelled(place: Place) -> None:
    place.admin("patch", "trtc", "call-1", "--type=merge", "-p", '{"spec":{"cancel":true}}')


def running(place: Place) -> None:
    place.set_status("call-1", phase="Running", status="Ready", statusDetail="Executing tool")


def asking(place: Place) -> None:
    place.admin("delete", "trtc", "call-1")
    add_question(place, "call-1")


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (ended, 1, "Tool call call-1 has ended (Tool executed): there is nothing to answer any more."),
        (cancelled, 1, "Tool call call-1 was cancelled: there is nothing to answer any more."),
        (running, 1, "Tool call call-1 waits for nobody now (Executing tool)."),
        (asking, 2, "Tool call call-1 asks a question. Answer it with: kubechain respond call-1 MESSAGE"),
    ],
)
def test_what_takes_no_approval_says_why(
    place: Place, cli: Cli, change: Callable[[Place], None], code: int, words: str
) -> None:
    add_waiting(place, "call-1")
    change(place)
    refused = cli("approve", "call-1", "-n", place.namespace)
    assert (refused.returncode, refused.stdout) == (code, "")
    assert words in refused.stderr


def test_an_approval_is_not_responded_to(place: Place, cli: Cli) -> None:
    add_waiting(place, "call-1")
    refused = cli("respond", "call-1", "yes", "-n", place.namespace)
    assert refused.returncode == 2
    assert "waits for approval. Use: kubechain approve call-1, or: kubechain reject call-1" in refused.stderr


def test_an_unknown_name_gets_a_suggestion(place: Place, cli: Cli) -> None:
    assert "Nothing waits there" in cli("approve", "call-2", "-n", place.namespace).stderr
    add_waiting(place, "fetch-task-2fe18aa-tc-01")
    missed = cli("approve", "fetch-task-2fe18aa-tc-1", "-n", place.namespace)
    assert missed.returncode == 2
    assert "Did you mean fetch-task-2fe18aa-tc-01?" in missed.stderr
    far = cli("approve", "something-else", "-n", place.namespace)
    assert "Waiting there: fetch-task-2fe18aa-tc-01." in far.stderr
    assert cli("approve", "..", "-n", place.namespace).returncode == 2


@pytest.fixture
def watching(alice: User, place: Place, cli: Cli, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    env = {**os.environ, "KUBECONFIG": str(tmp_path / "alice.kubeconfig")}
    command = [sys.executable, "-m", "kubechain_cli", "inbox", "-n", place.namespace, "--watch", "-o", "json"]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        yield process
        process.terminate()


def test_the_watch_tells_what_comes_and_how_it_ended(
    place: Place, cli: Cli, alice: User, watching: subprocess.Popen[str]
) -> None:
    assert watching.stdout is not None
    add_waiting(place, "call-1")
    arrived = json.loads(watching.stdout.readline())
    assert (arrived["type"], arrived["call"]["name"]) == ("Waiting", "call-1")
    place.set_status("call-1", statusDetail="Waiting, and asking again in 5 s")
    assert cli("approve", "call-1", "-n", place.namespace).returncode == 0
    done = json.loads(watching.stdout.readline())
    assert (done["type"], done["name"]) == ("Done", "call-1")
    assert done["how"].startswith(f"Approved by {alice.full_name} at 20")
    add_question(place, "q-1")
    assert json.loads(watching.stdout.readline())["call"]["question"] == "Which colour?"
    place.admin("delete", "trtc", "q-1")
    assert json.loads(watching.stdout.readline())["how"] == "Deleted"
