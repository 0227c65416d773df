"""Answers of people, written into a real API server: the first one counts, and everybody else is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import aiohttp
import pytest
from aiohttp.test_utils import TestServer

from kubechain_common.api.v1alpha1 import TaskRunToolCall
from kubechain_common.api.v1alpha1.taskruntoolcall import Decision, HumanResponse
from kubechain_common.kube.client import KubeClient
from kubechain_common.kube.event_recorder import EventRecorder
from kubechain_common.kube.secrets import SecretWatcher
from kubechain_common.messages import ObjectRef
from kubechain_human_bridge.answers.answers import Answers, Outcome
from kubechain_human_bridge.audit import Audit
from kubechain_human_bridge.links.link_key import SECRET_KEY, SECRET_NAME, LinkKey
from kubechain_human_bridge.links.signed_links import LinkError, SignedLinks
from kubechain_human_bridge.web.app import build_app
from kubechain_human_bridge.web.links import LinkPages
from kubechain_human_bridge.web.roads import AuditedAnswers

pytestmark = pytest.mark.integration

Eventually = Callable[..., Awaitable[None]]
Ask = Callable[..., Awaitable[ObjectRef]]


@pytest.fixture
def ask(kube: KubeClient, namespace: str, kubectl: object) -> Ask:
    """Creates a call that waits for a person. (``kubectl`` brings the CRDs.)"""

    async def create(status: str = "AwaitingHumanApproval") -> ObjectRef:
        question = status == "AwaitingHumanInput"
        spec: dict[str, Any] = {
            "toolCallId": "call_1",
            "taskRunRef": {"name": "hello"},
            "toolRef": {"name": "mail__human_contact_email" if question else "fetch__fetch"},
            "toolType": "HumanContact" if question else "MCP",
            "arguments": '{"message":"Which colour?"}' if question else '{"url":"https://example.com"}',
        }
        metadata = {"namespace": namespace, "name": f"hello-tc-{uuid4().hex[:6]}"}
        call = await kube.create(TaskRunToolCall.model_validate({"metadata": metadata, "spec": spec}))
        call = await kube.update_status(call, {"phase": "Pending", "status": status})
        return ObjectRef.of(call)

    return create


def _decision(by: str, *, approved: bool = True) -> Decision:
    return Decision(approved=approved, by=by, via="link", at=datetime.now(UTC))


async def test_of_many_answers_at_once_one_counts_and_the_others_are_told(kube: KubeClient, ask: Ask) -> None:
    ref = await ask()
    people = [f"person-{number}" for number in range(12)]
    replicas = [Answers(kube), Answers(kube)]
    verdicts = await asyncio.gather(
        *(replicas[n % 2].decide(ref, _decision(by, approved=n % 2 == 0)) for n, by in enumerate(people))
    )
    [winner] = [by for by, verdict in zip(people, verdicts, strict=True) if verdict.accepted]
    decision = (await kube.get(TaskRunToolCall, *ref.key)).spec.decision
    assert decision is not None
    assert decision.by == winner
    verb = "Approved" if decision.approved else "Rejected"
    for by, verdict in zip(people, verdicts, strict=True):
        if by != winner:
            assert verdict.outcome is Outcome.TOO_LATE
            assert verdict.sentence.startswith(f"{verb} by {winner} at {decision.at:%Y-%m-%d %H:%M:%S} UTC.")


async def test_a_question_is_answered_once(kube: KubeClient, ask: Ask) -> None:
    ref = await ask("AwaitingHumanInput")
    assert (await Answers(kube).decide(ref, _decision("alice"))).outcome is Outcome.NOT_ASKED
    assert (await Answers(kube).respond(ref, HumanResponse(message="Blue", by="alice"))).accepted
    late = await Answers(kube).respond(ref, HumanResponse(message="Red", by="bob"))
    assert (late.outcome, late.sentence.startswith("Answered by alice")) == (Outcome.TOO_LATE, True)
    response = (await kube.get(TaskRunToolCall, *ref.key)).spec.response
    assert response is not None
    assert response.message == "Blue"


async def test_a_call_of_the_same_name_made_later_takes_no_earlier_answer(kube: KubeClient, ask: Ask) -> None:
    ref = await ask()
    earlier = ref.model_copy(update={"uid": str(uuid4())})
    assert (await Answers(kube).decide(earlier, _decision("alice"))).outcome is Outcome.GONE
    assert (await kube.get(TaskRunToolCall, *ref.key)).spec.decision is None


async def test_an_answer_that_the_api_server_does_not_take_changes_nothing(kube: KubeClient, ask: Ask) -> None:
    ref = await ask()
    too_long = Decision.model_construct(approved=True, by="x" * 300, via="link")
    verdict = await Answers(kube).decide(ref, too_long)
    assert verdict.outcome is Outcome.INVALID
    assert (await kube.get(TaskRunToolCall, *ref.key)).spec.decision is None


@asynccontextmanager
async def _running(*parts: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_run(part)) for part in parts]
        yield
        for task in tasks:
            task.cancel()


async def _run(part: Callable[[], Awaitable[None]]) -> None:
    await part()


async def test_all_replicas_share_one_key_and_deleting_it_revokes_every_link(
    kube: KubeClient, namespace: str, eventually: Eventually
) -> None:
    watchers = [SecretWatcher(kube) for _ in range(3)]
    keys = [LinkKey(kube, watcher, namespace) for watcher in watchers]
    ref = ObjectRef(namespace=namespace, name="a-call", uid="uid")
    path = f"/api/v1/namespaces/{namespace}/secrets/{SECRET_NAME}"
    async with _running(*(watcher.run for watcher in watchers), *(key.run for key in keys)):
        await eventually(lambda: all(key.known and key.current for key in keys))
        assert len({key.current for key in keys}) == 1
        first = keys[0].current
        assert (await kube.get_secret(namespace, SECRET_NAME))[SECRET_KEY] == first
        token = SignedLinks(keys[0], "http://x").answer_link(ref, "Approval", "alice").partition("token=")[2]
        assert SignedLinks(keys[2], "http://x").read(token).by == "alice"

        await kube.request("DELETE", path)
        await eventually(lambda: all(key.current not in ("", first) for key in keys))
        assert len({key.current for key in keys}) == 1
        with pytest.raises(LinkError, match="not valid"):
            SignedLinks(keys[2], "http://x").read(token)

        second = keys[0].current
        await kube.request("PATCH", path, body={"data": None}, content_type="application/merge-patch+json")
        await eventually(lambda: all(key.current not in ("", second) for key in keys))
        assert len({key.current for key in keys}) == 1


async def test_a_replayed_link_is_refused_and_becomes_an_event(
    kube: KubeClient, namespace: str, ask: Ask, eventually: Eventually
) -> None:
    watcher, recorder = SecretWatcher(kube), EventRecorder(kube, "human-bridge")
    key = LinkKey(kube, watcher, namespace)
    audit = Audit(kube, recorder)
    ref = await ask()
    app = build_app(LinkPages(kube, SignedLinks(key, ""), AuditedAnswers(Answers(kube), audit), audit).routes())
    async with (
        _running(watcher.run, key.run, recorder.run),
        TestServer(app) as served,
        aiohttp.ClientSession(str(served.make_url(""))) as session,
    ):
        assert await key.wait(10.0)
        link = SignedLinks(key, "").answer_link(ref, "Approval", "alice@example.com")
        statuses = await asyncio.gather(*(_post(session, link, action) for action in ("approve", "reject", "approve")))
        assert sorted(statuses) == [200, 409, 409]
        assert await _post(session, link, "reject") == 409
        assert await recorder.flush(10.0)
    events = await kube.request(
        "GET", f"/api/v1/namespaces/{namespace}/events", params={"fieldSelector": f"involvedObject.uid={ref.uid}"}
    )
    [event] = events["items"]
    assert (event["type"], event["reason"], event["count"]) == ("Warning", "DecisionRefused", 3)
    assert event["source"]["component"] == "human-bridge"
    assert " by alice@example.com through link: " in event["message"]


async def _post(session: aiohttp.ClientSession, link: str, action: str) -> int:
    async with session.post(link, data={"action": action}) as response:
        return response.status
