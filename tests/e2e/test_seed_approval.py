"""The tutorial's section on human approval, in namespace default: its YAML, its commands, its words.

First as the tutorial tells it, with a mail by HumanLayer that is approved and then one that is rejected; then the same
Task is answered by every other road. The tests are steps: each goes on where the one before it stopped. (The road of
the page in a browser is in test_inbox_page.)
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from aiohttp import web
from tests.e2e.support import tutorial
from tests.e2e.support.background import BackgroundLoop
from tests.e2e.support.cluster import Cluster
from tests.e2e.support.humanlayer import API_KEY, HumanLayer
from tests.e2e.support.kubectl import Kubectl
from tests.e2e.support.people import Mailbox, Webhook, fetch, find_link, post, read_text
from tests.e2e.support.slack import SlackWorkspace
from tests.e2e.support.tables import assert_events, assert_lines_in_order, read_columns, read_events, read_rows

from kubechain_cli.scripted_llm import SCRIPTS, ScriptedServer
from kubechain_common.testing.eventually import eventually

pytestmark = pytest.mark.e2e

OPENAI_KEY = "sk-tutorial-openai-77cc1d"
TASK = "approved-fetch-task"
ANSWER_SECONDS = 30.0
HAIKU = "Golden C-3PO,\nSpeaks in many languages,\nDroid with gentle heart."
PAGE = "/api/people/2"
C3PO = {"name": "C-3PO", "height": "167", "mass": "75", "birth_year": "112BBY", "gender": "n/a", "species": []}
Event = tuple[str, str, str, str]


@dataclass
class Walk:
    """What the steps share."""

    kubectl: Kubectl
    llm: ScriptedServer
    page: str
    cluster: Cluster
    people: HumanLayer

    def call_of(self, task: str) -> dict[str, Any]:
        calls = self.kubectl.list("taskruntoolcall", "-l", f"kubechain.humanlayer.dev/taskruntoolcall={task}")
        assert len(calls) == 1, f"{len(calls)} calls of {task}"
        return calls[0]

    def start(self, task: str = TASK, *, asked: bool = True) -> dict[str, Any]:
        """Create the tutorial's Task under this name; its call once it waits, and its person has been asked."""
        self.kubectl.apply(tutorial.APPROVED_TASK.format(url=self.page).replace(TASK, task))

        def waiting() -> dict[str, Any]:
            call = self.call_of(task)
            status = call.get("status", {})
            assert status.get("status") == "AwaitingHumanApproval", status
            conditions = {c["type"]: c["status"] for c in status.get("conditions", [])}
            assert not asked or conditions.get("HumanAsked") == "True", status
            return call

        return eventually(waiting, 30, what=f"the tool call of {task} waiting for approval")

    def finish(self, task: str) -> str:
        """The output of the finished Task."""
        return str(self.kubectl.finish(task, timeout=ANSWER_SECONDS)["status"]["output"])

    def approved(self, task: str) -> dict[str, Any]:
        """The decision on the Task's call, after the tool has run and the haiku is there."""
        assert HAIKU in self.finish(task)
        call = self.call_of(task)
        assert call["status"]["phase"] == "Succeeded"
        assert "C-3PO" in call["status"]["result"]
        decision: dict[str, Any] = call["spec"]["decision"]
        assert decision["approved"] is True
        assert decision["at"]
        return decision

    def use_channel(self, name: str, spec: dict[str, Any], **secrets: str) -> None:
        """Have the calls of server fetch approved through another channel."""
        self.cluster.secrets |= set(secrets.values())
        meta = {"metadata": {"name": name}}
        # Of what has a key of its own: the Secret is called like the channel.
        self.kubectl.apply(
            {"apiVersion": "v1", "kind": "Secret", **meta, "stringData": secrets},
            {"apiVersion": "kubechain.humanlayer.dev/v1alpha1", "kind": "ContactChannel", **meta, "spec": spec},
            tutorial.APPROVED_FETCH_SERVER.replace("name: approval-channel", f"name: {name}"),
        )
        self.kubectl.wait(f"contactchannel/{name}")
        self.kubectl.wait("mcpserver/fetch")

    def expect_events(self, kind: str, name: str, *expected: Event) -> str:
        """`kubectl describe` once it shows the events; they are written after."""

        def described() -> str:
            text = self.kubectl("describe", kind, name)
            assert_events(read_events(text), expected)
            return text

        return eventually(described, 15, what=f"events of {kind} {name}")


def build_page() -> web.Application:
    async def handle(_: web.Request) -> web.Response:
        return web.json_response(C3PO, dumps=lambda data: json.dumps(data, separators=(",", ":")))

    app = web.Application()
    app.router.add_get(PAGE, handle)
    return app


@pytest.fixture(scope="module")
def walk(cluster: Cluster, servers: BackgroundLoop, humanlayer: HumanLayer) -> Iterator[Walk]:
    cluster.secrets |= {OPENAI_KEY, API_KEY}
    kubectl = Kubectl(cluster.kubeconfig, "default")
    clean_up(kubectl)
    humanlayer.seen.clear()  # other tests have asked people, too
    llm = servers.enter(ScriptedServer(SCRIPTS["tutorial"]))
    yield Walk(kubectl, llm, servers.serve(build_page()) + PAGE, cluster, humanlayer)
    clean_up(kubectl)


def clean_up(kubectl: Kubectl) -> None:
    for kind in ("taskruntoolcall", "task", "agent", "mcpserver", "contactchannel", "llm"):
        kubectl("delete", kind, "--all")
    kubectl("delete", "secret", "openai", "humanlayer", "--ignore-not-found")
    kubectl.delete_events()


# --- as the tutorial tells it ----------------------------------------------------------------------------------------


@pytest.mark.requirement("approval-secret", "approval-channel-manifest", "approval-channel-ready")
def test_create_a_contact_channel(walk: Walk) -> None:
    key = f"--from-literal=HUMANLAYER_API_KEY={API_KEY}"
    walk.kubectl("create", "secret", "generic", "humanlayer", key)
    walk.kubectl.apply(tutorial.APPROVAL_CHANNEL)
    walk.kubectl.wait("contactchannel/approval-channel")
    table = walk.kubectl("get", "contactchannel")
    assert read_columns(table) == ["NAME", "TYPE", "READY", "STATUS"]
    assert read_rows(table) == [{"NAME": "approval-channel", "TYPE": "email", "READY": "true", "STATUS": "Ready"}]
    assert walk.people.posts() == [], "nobody notices that a channel is validated"


@pytest.mark.requirement("approval-server-manifest", "approval-agent-manifest")
def test_the_server_references_the_channel(walk: Walk) -> None:
    walk.kubectl("create", "secret", "generic", "openai", f"--from-literal=OPENAI_API_KEY={OPENAI_KEY}")
    walk.kubectl.apply(tutorial.LLM.format(base_url=walk.llm.url), tutorial.APPROVED_FETCH_SERVER)
    walk.kubectl.apply(tutorial.APPROVED_AGENT)
    walk.kubectl.wait("mcpserver/fetch", timeout=90)  # uvx installs the server first
    walk.kubectl.wait("agent/agent-with-fetch")


@pytest.mark.requirement("approval-task-manifest", "approval-call-columns")
def test_the_tool_call_waits(walk: Walk) -> None:
    name = walk.start()["metadata"]["name"]
    assert re.fullmatch(rf"{TASK}-[0-9a-f]{{7}}-tc-01", name)
    table = walk.kubectl("get", "taskruntoolcall")
    assert read_columns(table) == ["NAME", "PHASE", "TASKRUN", "TOOL"]
    assert read_rows(table) == [{"NAME": name, "PHASE": "Pending", "TASKRUN": TASK, "TOOL": "fetch__fetch"}]


@pytest.mark.requirement(
    "approval-call-describe",
    "approval-call-label",
    "approval-call-owner",
    "approval-external-id",
    "approval-status",
    "approval-detail",
    "approval-event-awaiting",
    "approval-event-sent",
)
def test_the_waiting_tool_call_described(walk: Walk) -> None:
    call = walk.call_of(TASK)
    name, source = call["metadata"]["name"], "taskruntoolcall-controller"
    needed = "Tool execution requires approval via contact channel approval-channel"
    described = walk.expect_events(
        "taskruntoolcall",
        name,
        ("Normal", "AwaitingHumanApproval", source, needed),
        ("Normal", "HumanLayerRequestSent", source, "HumanLayer request sent"),
    )
    owner = walk.kubectl.get("task", TASK)["metadata"]["uid"]
    assert_lines_in_order(described, tutorial.WAITING_CALL_DESCRIBED.format(name=name, owner=owner, url=walk.page))
    assert re.fullmatch(r"ec-[0-9a-f]{16}", call["status"]["externalCallID"])


@pytest.mark.requirement("approval-request")
def test_the_person_is_asked_once_for_what_the_model_wants(walk: Walk) -> None:
    call_id = walk.call_of(TASK)["status"]["externalCallID"]
    (post,) = walk.people.posts(call_id)
    assert post.path.endswith("/function_calls")
    spec = post.body["spec"]
    assert (spec["fn"], spec["kwargs"]) == ("fetch__fetch", {"url": walk.page})
    email = spec["channel"]["email"]
    assert email["address"] == "approver@example.com"
    assert email["context_about_user"] == "Primary approver for web fetch operations"
    assert email["experimental_subject_line"] == "Approval Request from Kubechain"
    assert len(call_id.encode()) + len(post.body["run_id"].encode()) <= 64


@pytest.mark.requirement("approval-no-output-yet")
def test_the_task_has_no_output_yet(walk: Walk) -> None:
    (row,) = read_rows(walk.kubectl("get", "task", TASK))
    assert (row["PHASE"], row["OUTPUT"]) == ("ToolCallsPending", "")


@pytest.mark.requirement(
    "concept-human-approval", "approval-approved", "approval-task-describe", "approval-task-events"
)
def test_the_mail_is_approved(walk: Walk) -> None:
    call = walk.call_of(TASK)
    walk.people.approve(call["status"]["externalCallID"])
    walk.kubectl.wait(f"task/{TASK}", "condition=Complete", timeout=ANSWER_SECONDS)
    (row,) = read_rows(walk.kubectl("get", "taskruntoolcall", call["metadata"]["name"]))
    assert row["PHASE"] == "Succeeded"
    source = "task-controller"
    described = walk.expect_events(
        "task",
        TASK,
        ("Normal", "ValidationSucceeded", source, "Task validation succeeded"),
        ("Normal", "ToolCallsPending", source, "LLM response received, tool calls pending"),
        ("Normal", "ToolCallCreated", source, f"Created TaskRunToolCall {call['metadata']['name']}"),
        ("Normal", "SendingContextWindowToLLM", source, "Sending context window to LLM"),
        ("Normal", "AllToolCallsCompleted", source, "All tool calls completed, ready to send tool results to LLM"),
        ("Normal", "LLMFinalAnswer", source, "LLM response received successfully"),
    )
    assert_lines_in_order(described, tutorial.APPROVED_TASK_DESCRIBED.format(url=walk.page))
    assert walk.approved(TASK)["by"] == "humanlayer:approver@example.com"
    assert walk.approved(TASK)["via"] == "humanlayer"


@pytest.mark.requirement("approval-rejected")
def test_a_second_mail_is_rejected_and_the_model_reads_why(walk: Walk) -> None:
    call = walk.start("rejected-fetch-task")
    walk.people.reject(call["status"]["externalCallID"], "Not this site: use the archive instead.")
    assert "Not this site: use the archive instead." in walk.finish("rejected-fetch-task")
    call = walk.call_of("rejected-fetch-task")
    assert call["status"]["phase"] == "ToolCallRejected"
    assert call["spec"]["decision"]["comment"] == "Not this site: use the archive instead."
    asked = [request.body["messages"] for request in walk.llm.requests]
    assert "Not this site: use the archive instead." in asked[-1][-1]["content"]


# --- what the tutorial only planned ----------------------------------------------------------------------------------


@pytest.mark.requirement("approval-by-kubectl")
def test_kubectl_approves_a_call_that_was_mailed(walk: Walk) -> None:
    name = walk.start("patched-task")["metadata"]["name"]
    walk.kubectl("patch", "taskruntoolcall", name, "--type=merge", "-p", '{"spec":{"decision":{"approved":true}}}')
    decision = walk.approved("patched-task")
    assert decision["by"] == "kubechain:admin"
    assert "via" not in decision


@pytest.mark.requirement("approval-by-cli")
def test_the_command_approves(walk: Walk) -> None:
    name = walk.start("typed-task")["metadata"]["name"]
    shown = walk.cluster.run_cli("inbox")
    assert name in shown.stdout
    assert f'{{"url":"{walk.page}"}}' in shown.stdout
    done = walk.cluster.run_cli("approve", name, "--comment", "fine")
    assert done.returncode == 0, done.stderr
    decision = walk.approved("typed-task")
    assert (decision["via"], decision["by"], decision["comment"]) == ("cli", "kubechain:admin", "fine")
    late = walk.cluster.run_cli("reject", name)
    assert late.returncode == 1
    assert "Approved by kubechain:admin at 20" in late.stderr


def test_the_command_rejects_and_the_model_reads_why(walk: Walk) -> None:
    name = walk.start("refused-task")["metadata"]["name"]
    done = walk.cluster.run_cli("reject", name, "--comment", "ask the librarian")
    assert done.returncode == 0, done.stderr
    assert "ask the librarian" in walk.finish("refused-task")


def test_the_command_approves_other_arguments(walk: Walk) -> None:
    name = walk.start("edited-task")["metadata"]["name"]
    edited = json.dumps({"url": walk.page, "raw": True})
    assert walk.cluster.run_cli("approve", name, "--arguments", edited).returncode == 0
    assert walk.approved("edited-task")["arguments"] == edited
    call = walk.call_of("edited-task")
    assert json.loads(call["spec"]["arguments"]) == {"url": walk.page}


def test_the_deadline_decides_where_nobody_does(walk: Walk) -> None:
    walk.use_channel("patient", {"type": "inbox", "timeoutSeconds": 3, "onTimeout": "Approve"})
    walk.start("timed-task", asked=False)
    decision = walk.approved("timed-task")
    assert (decision["by"], decision["via"]) == ("deadline", "deadline")
    walk.use_channel("impatient", {"type": "inbox", "timeoutSeconds": 1, "onTimeout": "Reject"})
    walk.start("late-task", asked=False)
    assert "Nobody answered within 1 second" in walk.finish("late-task")
    assert walk.call_of("late-task")["status"]["phase"] == "ToolCallRejected"


def test_a_link_in_a_mail_of_ones_own_server_approves(walk: Walk, servers: BackgroundLoop) -> None:
    mailbox = servers.enter(Mailbox())
    smtp = {"host": "127.0.0.1", "port": mailbox.port, "security": "None", "from": "KubeChain <bot@example.com>"}
    walk.use_channel("mail", {"type": "email", "email": {"address": "boss@example.com", "smtp": smtp}})
    assert mailbox.mails == [], "nobody notices that a channel is validated"
    walk.start("linked-task")
    (mail,) = mailbox.mails
    assert mail["To"] == "boss@example.com"
    assert walk.page in read_text(mail)
    link = find_link(mail)
    status, page = fetch(link)
    assert status == 200
    assert walk.page in page
    assert "decision" not in walk.call_of("linked-task")["spec"], "opening a link decides nothing"
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    status, thanks = post(link, b"action=approve", form)
    assert (status, "Approved by" in thanks) == (200, True), thanks
    assert walk.approved("linked-task")["via"] == "link"
    status, late = post(link, b"action=reject", form)
    assert status >= 400
    assert "Approved by" in late


def test_a_button_in_slack_approves(walk: Walk, servers: BackgroundLoop) -> None:
    slack = SlackWorkspace(servers, f"{walk.cluster.page_url}/slack/default/slack/interactions")
    spec = {
        "channelOrUserID": "C0123ABC",
        "allowedResponderIDs": ["U0BOSS"],
        "baseUrl": slack.base_url,
        "botTokenFrom": {"secretKeyRef": {"name": "slack", "key": "token"}},
        "signingSecretFrom": {"secretKeyRef": {"name": "slack", "key": "signing"}},
    }
    secrets = {"token": slack.server.token, "signing": slack.server.signing_secret}
    walk.use_channel("slack", {"type": "slack", "slack": spec}, **secrets)
    walk.start("clicked-task")
    (message,) = slack.server.messages
    assert walk.page in json.dumps(message["blocks"])
    slack.click(message, "kubechain_approve", "U0STRANGER")
    assert "decision" not in walk.call_of("clicked-task")["spec"]
    assert slack.click(message, "kubechain_approve", "U0BOSS")[0] == 200
    decision = walk.approved("clicked-task")
    assert (decision["via"], "U0BOSS" in decision["by"]) == ("slack", True)


def test_a_program_behind_a_webhook_approves(walk: Walk, servers: BackgroundLoop) -> None:
    hook = Webhook("a-secret-of-the-program")
    source = {"secretKeyRef": {"name": "hook", "key": "secret"}}
    spec = {"url": servers.serve(hook.build_app()) + "/ask", "signingSecretFrom": source}
    walk.use_channel("hook", {"type": "webhook", "webhook": spec}, secret="a-secret-of-the-program")
    walk.start("called-back-task")
    (request,) = hook.told
    assert hook.bad_signatures == 0
    assert (request["tool"], json.loads(request["arguments"])) == ("fetch__fetch", {"url": walk.page})
    status, refused = Webhook("another-secret").answer(request, approved=True)
    assert (status, "signature" in refused) == (401, True)
    assert "decision" not in walk.call_of("called-back-task")["spec"]
    assert hook.answer(request, approved=True, by="carol")[0] == 200
    decision = walk.approved("called-back-task")
    assert (decision["via"], decision["by"]) == ("webhook", "webhook:carol")


# --- clean up, as the tutorial does ----------------------------------------------------------------------------------


@pytest.mark.requirement(
    "cleanup-calls", "cleanup-tasks", "cleanup-agents", "cleanup-servers", "cleanup-llms", "cleanup-secrets"
)
def test_remove_the_agent_the_task_and_related_resources(walk: Walk) -> None:
    walk.kubectl("create", "secret", "generic", "anthropic", "--from-literal=ANTHROPIC_API_KEY=not-used")
    walk.use_channel("silent", {"type": "inbox"})
    walk.start("left-waiting", asked=False)
    for kind in ("taskruntoolcall", "task", "agent", "mcpserver", "llm"):
        walk.kubectl("delete", kind, "--all")
    for secret in ("openai", "anthropic", "humanlayer"):
        walk.kubectl("delete", "secret", secret)
    assert walk.kubectl("get", "taskruntoolcall,task,agent,mcpserver,llm", "-o", "name") == ""
