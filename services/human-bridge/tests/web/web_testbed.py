"""The roads over HTTP, served for real, before a small API server that keeps calls in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import aiohttp
from aiohttp.test_utils import TestServer

from kubechain_common.api.v1alpha1 import ContactChannel, TaskRunToolCall
from kubechain_common.api.v1alpha1.meta import Resource
from kubechain_common.kube.client import KubeClient
from kubechain_common.kube.errors import ForbiddenError, KubeError, NotFoundError, UnavailableError
from kubechain_common.kube.event_recorder import EventRecorder
from kubechain_common.kube.secrets import SecretWatcher
from kubechain_common.messages import ObjectRef
from kubechain_common.testing.builders import build_call, build_task
from kubechain_common.testing.slack_server import BOT_TOKEN, SIGNING_SECRET, SlackServer
from kubechain_human_bridge.answers.answers import Answers
from kubechain_human_bridge.audit import Audit
from kubechain_human_bridge.channels.call_token import CallTokens
from kubechain_human_bridge.links.link_key import SECRET_KEY, LinkKey
from kubechain_human_bridge.links.signed_links import SignedLinks
from kubechain_human_bridge.web.app import build_app
from kubechain_human_bridge.web.callbacks import WebhookCallbacks
from kubechain_human_bridge.web.links import LinkPages
from kubechain_human_bridge.web.roads import AuditedAnswers, FoundChannel
from kubechain_human_bridge.web.slack import SlackInteractions

R = TypeVar("R", bound=Resource)
HOOK_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
LINK_KEY = "the key of the links"


class Cluster(KubeClient):
    """Calls and Tasks in memory; ``error`` is raised instead of every answer while it is set.

    ``patch_error`` is raised for a write, which took place all the same if ``patched`` says so.
    """

    def __init__(self) -> None:
        super().__init__("test")
        self.objects: dict[tuple[str, str, str], Resource] = {}
        self.error: KubeError | None = None
        self.patch_error: KubeError | None = None
        self.patched = False
        self.reads = 0

    def put(self, obj: Resource) -> None:
        self.objects[obj.crd.kind, obj.namespace, obj.name] = obj

    async def get(self, kind: type[R], namespace: str, name: str) -> R:
        self.reads += 1
        if self.error is not None:
            raise self.error
        found = self.objects.get((kind.crd.kind, namespace, name))
        if not isinstance(found, kind):
            raise NotFoundError(name)
        return found

    async def patch(self, kind: type[R], namespace: str, name: str, body: Mapping[str, Any]) -> R:
        obj = await self.get(kind, namespace, name)
        if self.patch_error is not None and not self.patched:
            raise self.patch_error
        raw = obj.to_wire()
        assert body["metadata"] == {"uid": obj.uid, "resourceVersion": obj.metadata.resource_version}
        raw["metadata"]["resourceVersion"] = str(int(obj.metadata.resource_version) + 1)
        raw["spec"] |= body["spec"]
        changed = kind.model_validate(raw)
        self.put(changed)
        if self.patch_error is not None:
            raise self.patch_error
        return changed


class Recorder(EventRecorder):
    """Keeps the events as (kind/namespace/name, type, reason, message)."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str, str, str]] = []
        self.component = ""

    def for_component(self, component: str) -> Recorder:
        self.component = component
        return self

    def event(self, obj: Resource, event_type: str, reason: str, message: str) -> None:
        self.events.append((f"{obj.crd.kind}/{obj.namespace}/{obj.name}", event_type, reason, message))


class Secrets(SecretWatcher):
    """The Secret with the key of the links."""

    def __init__(self, kube: KubeClient) -> None:
        super().__init__(kube)
        self.key = LINK_KEY
        self.known = True

    def is_known(self, namespace: str, name: str) -> bool:
        return self.known

    def get(self, namespace: str, name: str) -> dict[str, str] | None:
        return {SECRET_KEY: self.key} if self.key and self.known else None


class Channels:
    """The channels that exist."""

    def __init__(self) -> None:
        self.found: dict[tuple[str, str], FoundChannel] = {}

    def put(self, name: str, spec: dict[str, Any], secrets: dict[str, str], namespace: str = "default") -> None:
        channel = ContactChannel.model_validate(
            {"metadata": {"namespace": namespace, "name": name, "uid": f"uid-{namespace}-{name}"}, "spec": spec}
        )
        self.found[namespace, name] = FoundChannel(channel, secrets)

    async def find_channel(self, namespace: str, name: str) -> FoundChannel | None:
        return self.found.get((namespace, name))


@dataclass
class World:
    """The service as people reach it at ``url``, and what it works with."""

    cluster: Cluster
    recorder: Recorder
    secrets: Secrets
    channels: Channels
    links: SignedLinks
    slack: SlackServer
    session: aiohttp.ClientSession
    url: str = ""

    def add_call(self, name: str = "approved-tc-01", *, namespace: str = "default", **spec: Any) -> ObjectRef:
        """A call that waits for a person."""
        question = spec.get("toolType") == "HumanContact"
        status = {"status": "AwaitingHumanInput" if question else "AwaitingHumanApproval", "phase": "Pending"}
        task = build_task("approved", metadata={"namespace": namespace, "uid": f"uid-{namespace}-task"})
        spec.setdefault("arguments", '{"url":"https://swapi.dev/api/people/2"}')
        call = build_call(name, task=task, status=status, **spec)
        raw = call.to_wire()
        raw["metadata"] |= {"namespace": namespace, "uid": f"uid-{namespace}-{name}"}
        call = TaskRunToolCall.model_validate(raw)
        self.cluster.put(task)
        self.cluster.put(call)
        return ObjectRef.of(call)

    def read(self, ref: ObjectRef) -> TaskRunToolCall:
        found = self.cluster.objects["TaskRunToolCall", ref.namespace, ref.name]
        assert isinstance(found, TaskRunToolCall)
        return found

    def answered(self, ref: ObjectRef) -> bool:
        call = self.read(ref)
        return call.spec.decision is not None or call.spec.response is not None

    def lose_cluster(self) -> None:
        self.cluster.error = UnavailableError("the API server is away")

    def take_right(self) -> None:
        self.cluster.patch_error = ForbiddenError("human-bridge may not patch taskruntoolcalls")

    def lose_word(self) -> None:
        """Of a write that takes place."""
        self.cluster.patch_error = UnavailableError("no answer in time")
        self.cluster.patched = True


@asynccontextmanager
async def open_world() -> AsyncIterator[World]:
    cluster, recorder, channels, slack = Cluster(), Recorder(), Channels(), SlackServer()
    secrets = Secrets(cluster)
    key = LinkKey(cluster, secrets, "default")
    links = SignedLinks(key, "https://people.example.com/")
    tokens = CallTokens(lambda: key.current)
    audit = Audit(cluster, recorder)
    answers = AuditedAnswers(Answers(cluster), audit)
    async with (
        aiohttp.ClientSession() as session,
        TestServer(slack.build_app()) as slack_server,
        TestServer(
            build_app(
                LinkPages(cluster, links, answers, audit).routes(),
                WebhookCallbacks(channels, tokens, answers, audit).routes(),
                SlackInteractions(cluster, session, channels, tokens, answers, audit).routes(),
            )
        ) as served,
    ):
        slack.origin = str(slack_server.make_url("")).rstrip("/")
        source = {"secretKeyRef": {"name": "x", "key": "x"}}
        for namespace in ("default", "other"):
            channels.put(
                "hook",
                {"type": "webhook", "webhook": {"url": "http://hook.example/", "signingSecretFrom": source}},
                {"signingSecretFrom": HOOK_SECRET},
                namespace,
            )
            channels.put(
                "team",
                {"type": "slack", "slack": {"channelOrUserID": "C0123ABCD", "baseUrl": slack.base_url}},
                {"botTokenFrom": BOT_TOKEN, "signingSecretFrom": SIGNING_SECRET},
                namespace,
            )
        yield World(cluster, recorder, secrets, channels, links, slack, session, str(served.make_url("")).rstrip("/"))
