"""Whoever may not answer is refused, on every road: told so, audited in an Event, and nothing is changed.

Each test lets somebody try what they may not, and then has the call approved by who may: the tool runs once, not
before, and with the arguments of the model.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit
from uuid import uuid4

import pytest
from tests.e2e.support import manifests
from tests.e2e.support.background import BackgroundLoop
from tests.e2e.support.cluster import Cluster
from tests.e2e.support.humanlayer import API_KEY, HumanLayer
from tests.e2e.support.inbox import SOON, Call, Inbox
from tests.e2e.support.kubectl import Kubectl
from tests.e2e.support.people import Mailbox, Webhook, fetch, find_link, post, read_text
from tests.e2e.support.slack import SlackWorkspace
from tests.e2e.support.workspace import ToolLog, Workspace

from kubechain_common.messages import ObjectRef
from kubechain_common.testing.eventually import eventually
from kubechain_human_bridge.links.link_key import SECRET_KEY, SECRET_NAME
from kubechain_human_bridge.links.signed_links import Grant, write_grant

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

FORM = {"Content-Type": "application/x-www-form-urlencoded"}
BOSS, STRANGER = "U0BOSS", "U0STRANGER"
HOOK_SECRETS = {"hook": "the-secret-of-hook", "other-hook": "the-secret-of-other-hook"}
LAYER_SECRET = "the-secret-of-the-humanlayer-webhook"


class Tenant:
    """A namespace with a channel of each kind; MCPServer ``via-X`` has its calls approved through channel X."""

    def __init__(self, cluster: Cluster, servers: BackgroundLoop, folder: Path, hook_secrets: dict[str, str]) -> None:
        self.namespace = f"e2e-{uuid4().hex[:8]}"
        Kubectl(cluster.kubeconfig, "default")("create", "namespace", self.namespace)
        self.cluster = cluster
        self.inbox = Inbox(Workspace(cluster, servers, self.namespace))
        self.kubectl = self.inbox.kubectl
        self.log = ToolLog(folder / f"{self.namespace}.jsonl")
        self.hooks = {name: Webhook(secret) for name, secret in hook_secrets.items()}
        self.channels: list[str] = []
        cluster.secrets |= {*hook_secrets.values(), LAYER_SECRET}
        for name, secret in hook_secrets.items():
            self.kubectl.apply(manifests.secret(name, secret=secret))
            url = servers.serve(self.hooks[name].build_app()) + "/ask"
            source = {"secretKeyRef": {"name": name, "key": "secret"}}
            self.add_channel(name, {"type": "webhook", "webhook": {"url": url, "signingSecretFrom": source}})

    def add_channel(self, name: str, spec: dict[str, Any]) -> None:
        self.channels.append(name)
        guard: dict[str, Any] = {"approvalContactChannel": {"name": name}}
        self.kubectl.apply(
            manifests.build("ContactChannel", name, spec),
            manifests.own_server(f"via-{name}", "counting_server.py", str(self.log.path), **guard),
        )

    def add_slack(self, name: str, servers: BackgroundLoop, signing_secret: str) -> SlackWorkspace:
        slack = SlackWorkspace(servers, f"{self.cluster.page_url}/slack/{self.namespace}/{name}/interactions")
        slack.server.signing_secret = signing_secret
        self.cluster.secrets |= {slack.server.token, signing_secret}
        self.kubectl.apply(manifests.secret(name, token=slack.server.token, signing=signing_secret))
        spec = {
            "channelOrUserID": "C0123ABC",
            "allowedResponderIDs": [BOSS],
            "baseUrl": slack.base_url,
            "botTokenFrom": {"secretKeyRef": {"name": name, "key": "token"}},
            "signingSecretFrom": {"secretKeyRef": {"name": name, "key": "signing"}},
        }
        self.add_channel(name, {"type": "slack", "slack": spec})
        return slack

    def wait_ready(self) -> None:
        for name in self.channels:
            self.kubectl.wait(f"contactchannel/{name}")
            self.kubectl.wait(f"mcpserver/via-{name}", timeout=90)

    # --- a call that somebody wants to answer ---

    def ask(self, name: str, channel: str) -> Call:
        """A call that waits, and whose person has been asked."""
        arguments = {"task": name, "turn": 1, "index": 1, "ms": 0}
        self.inbox.ask_approval(name, arguments, server=f"via-{channel}", tool="count")

        def asked() -> Call | None:
            call = self.inbox.call(name)
            conditions = {c["type"]: c["status"] for c in call["status"].get("conditions", [])}
            return call if conditions.get("HumanAsked") == "True" else None

        call = eventually(asked, SOON, what=f"the person of {name} to be asked")
        assert call is not None
        return call

    def expect_refused(self, call: Call, words: str, about: dict[str, Any] | None = None) -> None:
        """An Event of the call, or of the channel ``about``, says so; the call waits as before, and nothing has run."""
        uid = (about or call)["metadata"]["uid"]

        def told() -> bool:
            events = [e for e in self.kubectl.list("events") if e["involvedObject"]["uid"] == uid]
            refusals = [e for e in events if e["reason"] == "DecisionRefused"]
            assert all((e["type"], e["source"]["component"]) == ("Warning", "human-bridge") for e in refusals)
            messages = [e["message"] for e in refusals]
            assert any(words in message for message in messages), messages
            return True

        eventually(told, SOON, what=f"an event that says {words!r}")
        name = call["metadata"]["name"]
        now = self.inbox.call(name)
        assert now["spec"] == call["spec"]
        assert now["status"]["status"] == "AwaitingHumanApproval"
        assert self.runs_of(name) == 0

    def channel(self, name: str) -> dict[str, Any]:
        return self.kubectl.get("contactchannel", name)

    def runs_of(self, name: str) -> int:
        return sum(task == name for task, _ in self.log.of("start"))

    def finish(self, call: Call, by: str) -> None:
        """The call has been approved by ``by``, and has run once."""
        name = call["metadata"]["name"]
        done = self.inbox.finish(name, "Succeeded")
        assert by in done["spec"]["decision"]["by"]
        assert (done["status"]["result"], self.runs_of(name)) == (f"counted {name} 1 1", 1)

    def approve(self, call: Call) -> None:
        """By kubectl, by who may."""
        decision = '{"spec":{"decision":{"approved":true}}}'
        self.kubectl("patch", "taskruntoolcall", call["metadata"]["name"], "--type=merge", "-p", decision)
        self.finish(call, "kubechain:admin")


class World:
    """``own`` is where the tests play; ``foreign`` has channels of the same names, with other secrets."""

    def __init__(self, cluster: Cluster, servers: BackgroundLoop, folder: Path) -> None:
        self.cluster = cluster
        self.url = cluster.page_url
        self.own = Tenant(cluster, servers, folder, HOOK_SECRETS)
        self.foreign = Tenant(cluster, servers, folder, {"hook": "the-secret-of-the-namesake"})
        self.mailbox = servers.enter(Mailbox())
        smtp = {"host": "127.0.0.1", "port": self.mailbox.port, "security": "None", "from": "bot@example.com"}
        self.own.add_channel("mail", {"type": "email", "email": {"address": "boss@example.com", "smtp": smtp}})
        self.slack = self.own.add_slack("slack", servers, f"slack-{uuid4().hex}")
        self.other_slack = self.own.add_slack("other-slack", servers, f"slack-{uuid4().hex}")
        self.humanlayer = HumanLayer()
        layer = servers.serve(self.humanlayer.build_app())
        self.own.kubectl.apply(manifests.secret("humanlayer", key=API_KEY, webhook=LAYER_SECRET))
        spec = {
            "type": "email",
            "email": {"address": "boss@example.com"},
            "apiKeyFrom": {"secretKeyRef": {"name": "humanlayer", "key": "key"}},
            "humanLayer": {
                "baseUrl": layer,
                "webhookSecretFrom": {"secretKeyRef": {"name": "humanlayer", "key": "webhook"}},
            },
        }
        self.own.add_channel("humanlayer", spec)
        self.own.wait_ready()
        self.foreign.wait_ready()

    def link_of(self, call: Call) -> str:
        """From the latest mail about a call of this name."""
        task = f'"task": "{call["metadata"]["name"]}"'
        return [find_link(mail) for mail in self.mailbox.mails if task in read_text(mail)][-1]

    def read_link_key(self) -> str:
        """The key that the cluster signs its links with."""
        admin = Kubectl(self.cluster.kubeconfig, "default")
        found = admin.list("secret", "-A", "--field-selector", f"metadata.name={SECRET_NAME}")
        (key,) = [base64.b64decode(secret["data"][SECRET_KEY]).decode() for secret in found]
        self.cluster.secrets.add(key)
        return key

    def tell_humanlayer_hook(self, call: Call, secret: str, *, channel: str = "humanlayer") -> tuple[int, str]:
        """HumanLayer's webhook, signed with this secret."""
        event = {"type": "function_call.completed", "event": {"call_id": call["status"]["externalCallID"]}}
        body, stamp = json.dumps(event).encode(), str(int(time.time()))
        digest = hmac.new(secret.encode(), f"msg_1.{stamp}.".encode() + body, hashlib.sha256).digest()
        signature = f"v1,{base64.b64encode(digest).decode()}"
        headers = {"svix-id": "msg_1", "svix-timestamp": stamp, "svix-signature": signature}
        return post(f"{self.url}/humanlayer/{self.own.namespace}/{channel}", body, headers)


@pytest.fixture(scope="module")
def world(cluster: Cluster, servers: BackgroundLoop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(cluster, servers, tmp_path_factory.mktemp("runs"))
    yield made
    for tenant in (made.own, made.foreign):
        Kubectl(cluster.kubeconfig, "default")("delete", "namespace", tenant.namespace, "--wait=false")


def decide(world: World, tenant: Tenant, call: Call, headers: dict[str, str]) -> tuple[int, str]:
    """An approval through the page's API."""
    url = f"{world.url}/api/v1/requests/{tenant.namespace}/{call['metadata']['name']}/decision"
    body = json.dumps({"uid": call["metadata"]["uid"], "approved": True}).encode()
    return post(url, body, {"Content-Type": "application/json", **headers})


# --- without a token, and without the right --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [{}, {"Authorization": "Bearer forged"}, {"Cookie": "kubechain-session=forged.forged", "X-KubeChain-Page": "1"}],
    ids=["nothing", "forged-token", "forged-session"],
)
def test_without_a_good_token(world: World, headers: dict[str, str]) -> None:
    call = world.own.ask(f"no-token-{uuid4().hex[:6]}", "hook")
    assert decide(world, world.own, call, headers)[0] == 401
    world.own.expect_refused(call, "Refused an answer through page: ")
    world.own.approve(call)


def test_with_a_token_that_lacks_the_right(world: World) -> None:
    inbox = world.own.inbox
    viewer = inbox.add_viewer("viewer")
    call = world.own.ask("no-right", "hook")
    status, said = decide(world, world.own, call, {"Authorization": f"Bearer {viewer}"})
    assert (status, 'the right to \\"decide\\"' in said) == (403, True)
    world.own.expect_refused(call, f"by {inbox.user('viewer')} through page")
    world.own.approve(call)


def test_kubectl_without_the_right_is_refused_by_the_api_server(world: World) -> None:
    """The one road on which we are not asked: the API server's own answer is all, and its audit log."""
    kubectl, inbox = world.own.kubectl, world.own.inbox
    inbox.add_patcher("patcher")
    call = world.own.ask("only-patch", "hook")
    patch = ("patch", "taskruntoolcall", "only-patch", "--type=merge", "-p", '{"spec":{"decision":{"approved":true}}}')
    refused = kubectl.try_run("--as", inbox.user("patcher"), *patch)
    assert refused.returncode != 0
    assert "may not answer tool calls in namespace" in refused.stderr
    assert inbox.call("only-patch")["spec"] == call["spec"]
    assert world.own.runs_of("only-patch") == 0
    world.own.approve(call)


def test_another_namespaces_call(world: World) -> None:
    """Who may decide here may not there; the call there has the name of one here."""
    here, there = world.own.ask("everywhere", "hook"), world.foreign.ask("everywhere", "hook")
    token = world.own.inbox.add_approver("approver")
    headers = {"Authorization": f"Bearer {token}"}
    assert decide(world, world.foreign, there, headers)[0] == 403
    world.foreign.expect_refused(there, f"by {world.own.inbox.user('approver')} through page")
    assert decide(world, world.own, here, headers)[0] == 200
    world.own.finish(here, world.own.inbox.user("approver"))
    assert world.foreign.runs_of("everywhere") == 0
    world.foreign.approve(there)


# --- links -----------------------------------------------------------------------------------------------------------


def test_a_forged_link(world: World) -> None:
    call = world.own.ask("forged-link", "mail")
    link = world.link_of(call)
    claims, _, signature = parse_qs(urlsplit(link).query)["token"][0].rpartition(".")
    changed = ("B" if signature[0] != "B" else "C") + signature[1:]
    forged = f"{world.url}/answer?{urlencode({'token': f'{claims}.{changed}'})}"
    for status, page in (post(forged, b"action=approve", FORM), fetch(forged)):
        assert (status, "not valid" in page) == (403, True)
    world.own.expect_refused(call, "through link: the link is forged")
    assert post(link, b"action=approve", FORM)[0] == 200
    world.own.finish(call, "boss@example.com")


def test_an_expired_link(world: World) -> None:
    call = world.own.ask("expired-link", "mail")
    metadata = call["metadata"]
    ref = ObjectRef(namespace=metadata["namespace"], name=metadata["name"], uid=metadata["uid"])
    grant = Grant(ref, "Approval", "boss@example.com", datetime.now(UTC) - timedelta(seconds=1))
    expired = f"{world.url}/answer?{urlencode({'token': write_grant(world.read_link_key(), grant)})}"
    status, page = post(expired, b"action=approve", FORM)
    assert (status, "This link expired at" in page) == (403, True)
    world.own.expect_refused(call, "by boss@example.com through link: the link has expired")
    world.own.approve(call)


def test_a_link_to_an_earlier_call_of_this_name(world: World) -> None:
    earlier = world.link_of(world.own.ask("made-again", "mail"))
    world.own.kubectl("delete", "taskruntoolcall", "made-again")
    call = world.own.ask("made-again", "mail")
    status, page = post(earlier, b"action=approve", FORM)
    assert (status, "does not exist any more" in page) == (404, True)
    assert world.own.inbox.call("made-again")["spec"] == call["spec"]
    assert world.own.runs_of("made-again") == 0
    assert post(world.link_of(call), b"action=approve", FORM)[0] == 200
    world.own.finish(call, "boss@example.com")


def test_a_replayed_link(world: World) -> None:
    call = world.own.ask("replayed-link", "mail")
    link = world.link_of(call)
    assert post(link, b"action=approve", FORM)[0] == 200
    world.own.finish(call, "boss@example.com")
    before = world.own.inbox.call("replayed-link")
    status, page = post(link, b"action=reject&comment=changed+my+mind", FORM)
    assert (status, "Approved by boss@example.com" in page) == (409, True)
    expect_told_too_late(world, call)
    assert world.own.inbox.call("replayed-link")["spec"] == before["spec"]
    assert world.own.runs_of("replayed-link") == 1


def expect_told_too_late(world: World, call: Call) -> None:
    def told() -> bool:
        events = world.own.kubectl.list("events")
        mine = [e for e in events if e["involvedObject"]["uid"] == call["metadata"]["uid"]]
        return any(e["reason"] == "DecisionRefused" and "not needed any more" in e["message"] for e in mine)

    eventually(told, SOON, what="an event about the late answer")


# --- signatures ------------------------------------------------------------------------------------------------------


def told_of(hook: Webhook, call: Call) -> dict[str, Any]:
    (request,) = [request for request in hook.told if request["call"] == call["metadata"]["name"]]
    return request


def test_a_callback_with_a_wrong_signature(world: World) -> None:
    call = world.own.ask("wrong-callback", "hook")
    request = told_of(world.own.hooks["hook"], call)
    status, said = Webhook("not-the-secret").answer(request, approved=True)
    assert (status, "signature does not match" in said) == (401, True)
    world.own.expect_refused(call, "through webhook: the signature does not match", world.own.channel("hook"))
    assert world.own.hooks["hook"].answer(request, approved=True, by="carol")[0] == 200
    world.own.finish(call, "webhook:carol")


def test_a_replayed_callback(world: World) -> None:
    call = world.own.ask("replayed-callback", "hook")
    request = told_of(world.own.hooks["hook"], call)
    assert world.own.hooks["hook"].answer(request, approved=True, by="carol")[0] == 200
    world.own.finish(call, "webhook:carol")
    before = world.own.inbox.call("replayed-callback")["spec"]
    assert world.own.hooks["hook"].answer(request, approved=False, by="carol")[0] == 409
    expect_told_too_late(world, call)
    assert world.own.inbox.call("replayed-callback")["spec"] == before


def test_a_callback_of_another_channel(world: World) -> None:
    """What was asked through one channel is not answered by the program of another, though that signs well."""
    call = world.own.ask("other-callback", "hook")
    request = told_of(world.own.hooks["hook"], call)
    url = f"{world.url}/callbacks/{world.own.namespace}/other-hook"
    status, said = world.own.hooks["other-hook"].answer({**request, "callbackUrl": url}, approved=True)
    assert (status, "channel" in said) == (403, True)
    world.own.expect_refused(call, "through webhook: ", world.own.channel("other-hook"))
    world.own.approve(call)


def test_a_callback_to_the_namesake_of_another_namespace(world: World) -> None:
    call = world.own.ask("namesake-callback", "hook")
    request = told_of(world.own.hooks["hook"], call)
    assert not [told for told in world.foreign.hooks["hook"].told if told["call"] == call["metadata"]["name"]]
    url = f"{world.url}/callbacks/{world.foreign.namespace}/hook"
    status, said = world.foreign.hooks["hook"].answer({**request, "callbackUrl": url}, approved=True)
    assert (status, "channel" in said) == (403, True)
    refused = {"uid": world.foreign.channel("hook")["metadata"]["uid"]}
    eventually(
        lambda: any(
            e["reason"] == "DecisionRefused" and e["involvedObject"]["uid"] == refused["uid"]
            for e in world.foreign.kubectl.list("events")
        ),
        SOON,
        what="an event of the namesake",
    )
    assert world.own.inbox.call("namesake-callback")["spec"] == call["spec"]
    assert world.foreign.hooks["hook"].answer(request, approved=True)[0] == 401  # nor does its secret open ours
    world.own.expect_refused(call, "through webhook: the signature does not match", world.own.channel("hook"))
    world.own.approve(call)


def test_only_the_person_of_the_own_namespace_is_asked(world: World) -> None:
    here, there = world.own.ask("asked-here", "hook"), world.foreign.ask("asked-there", "hook")
    for tenant, other, call in ((world.own, world.foreign, here), (world.foreign, world.own, there)):
        request = told_of(tenant.hooks["hook"], call)
        assert request["namespace"] == tenant.namespace
        names = [told["call"] for hook in other.hooks.values() for told in hook.told]
        assert call["metadata"]["name"] not in names
        assert all(hook.bad_signatures == 0 for hook in tenant.hooks.values()), "each is asked with its own secret"
        tenant.approve(call)


def message_of(slack: SlackWorkspace, call: Call) -> dict[str, Any]:
    """The message that asked about the call, which its only link leads to."""
    name = call["metadata"]["name"]
    (message,) = [m for m in slack.server.messages if f'/{name}"' in json.dumps(m["blocks"])]
    return message


def test_a_click_with_a_wrong_signature(world: World) -> None:
    call = world.own.ask("wrong-click", "slack")
    message = message_of(world.slack, call)
    genuine = world.slack.server.signing_secret
    world.slack.server.signing_secret = "not-the-secret"
    status, said = world.slack.click(message, "kubechain_approve", BOSS)
    world.slack.server.signing_secret = genuine
    assert (status, "signature does not match" in said) == (401, True)
    world.own.expect_refused(call, "through slack: Slack's signature does not match", world.own.channel("slack"))
    assert world.slack.click(message, "kubechain_approve", BOSS)[0] == 200
    world.own.finish(call, f"slack:{BOSS}")


def test_a_click_of_somebody_who_may_not(world: World) -> None:
    call = world.own.ask("stranger-click", "slack")
    world.slack.click(message_of(world.slack, call), "kubechain_approve", STRANGER)
    assert "allowedResponderIDs" in world.slack.server.whispers[-1]["text"]
    world.own.expect_refused(call, f"by slack:{STRANGER} (alice) through slack: not in allowedResponderIDs")
    world.own.approve(call)


def test_a_click_at_the_endpoint_of_another_channel(world: World) -> None:
    """Signed by the other channel's app, with the token of this channel's message."""
    call = world.own.ask("other-click", "slack")
    world.other_slack.click(message_of(world.slack, call), "kubechain_approve", BOSS)
    assert "request" in world.other_slack.server.whispers[-1]["text"]
    world.own.expect_refused(call, "through slack: ", world.own.channel("other-slack"))
    world.own.approve(call)


def test_humanlayers_webhook_with_a_wrong_signature(world: World) -> None:
    """Neither does it carry an answer: one that is well signed only makes us look, with our own key."""
    call = world.own.ask("wrong-layer", "humanlayer")
    world.humanlayer.seen.clear()
    status, said = world.tell_humanlayer_hook(call, "not-the-secret")
    assert (status, "signature does not match" in said) == (401, True)
    world.own.expect_refused(call, "through humanlayer: the signature does not match", world.own.channel("humanlayer"))
    status, said = world.tell_humanlayer_hook(call, LAYER_SECRET)
    assert (status, said) == (200, "There is no answer yet.\n")
    world.humanlayer.approve(call["status"]["externalCallID"])
    assert world.tell_humanlayer_hook(call, LAYER_SECRET)[0] == 200
    world.own.finish(call, "humanlayer:approver@example.com")


def test_humanlayers_webhook_about_a_call_of_another_channel(world: World) -> None:
    call = world.own.ask("other-layer", "hook")
    status, said = world.tell_humanlayer_hook(call, LAYER_SECRET)
    assert (status, "another channel" in said) == (403, True)
    world.own.expect_refused(call, "asked through another channel", world.own.channel("humanlayer"))
    world.own.approve(call)


def test_what_was_said_of_an_earlier_call_of_this_name(world: World) -> None:
    """HumanLayer is asked for answers by an id of ours: that of a call made again is another, so is what it wants."""
    first = world.own.ask("renewed", "humanlayer")
    world.own.kubectl("delete", "taskruntoolcall", "renewed")
    call = world.own.ask("renewed", "humanlayer")
    assert call["status"]["externalCallID"] != first["status"]["externalCallID"]
    world.humanlayer.approve(first["status"]["externalCallID"])
    assert world.tell_humanlayer_hook(first, LAYER_SECRET) == (200, "Nobody waits for this answer.\n")
    assert world.tell_humanlayer_hook(call, LAYER_SECRET) == (200, "There is no answer yet.\n")
    assert world.own.inbox.call("renewed")["spec"] == call["spec"]
    assert world.own.runs_of("renewed") == 0
    world.humanlayer.approve(call["status"]["externalCallID"])
    assert world.tell_humanlayer_hook(call, LAYER_SECRET)[0] == 200
    world.own.finish(call, "humanlayer:approver@example.com")
