from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from asking_testbed import ASKED, WAITING, World, build_channel

from kubechain_common.api.v1alpha1 import TaskRunToolCall
from kubechain_common.kube.errors import ForbiddenError, UnavailableError
from kubechain_common.messages.human import AnswerCheck, HumanResult
from kubechain_common.messages.topology import human_result_subject
from kubechain_common.messaging.delivery import Poison
from kubechain_common.messaging.errors import RetryLater
from kubechain_common.messaging.started_calls import Claim
from kubechain_common.testing.builders import NOW, build_call
from kubechain_human_bridge.asking.request_worker import ask_key
from kubechain_human_bridge.channels.errors import ChannelRefusedError, ChannelUnavailableError
from kubechain_human_bridge.links.link_key import KeyUnknownError


async def test_a_person_is_asked_and_it_is_reported() -> None:
    world = World()
    await world.handle()
    ask = world.asks[0]
    assert (ask.external_call_id, ask.tool, ask.agent, ask.again) == ("ec-1", "fetch__fetch", "my-assistant", False)
    assert ask.user_message == "What is the capital of the moon?"
    assert (ask.page_link, ask.answer_link, ask.expires_at) == ("https://kc/hello-1234567-tc-01", "", None)
    # The check comes first: a crash in between leaves a request that is asked about again, not one without a check.
    assert [type(message) for _, message in world.published] == [AnswerCheck, HumanResult]
    result = world.results[0]
    assert (result.outcome, result.reason, result.message) == ("Sent", "HumanRequestSent", "sent")
    assert world.claims == {"ask/default/hello-1234567-tc-01": Claim.TAKEN}


async def test_a_channel_with_a_way_back_needs_no_check() -> None:
    world = World(polled=False)
    await world.handle()
    assert world.checks == []
    assert world.results[0].outcome == "Sent"


async def test_a_mail_of_our_own_carries_the_links_and_the_deadline() -> None:
    smtp = {"address": "a@example.com", "smtp": {"host": "h", "from": "k@example.com"}}
    world = World(channel=build_channel(apiKeyFrom=None, email=smtp, timeoutSeconds=60))
    await world.handle()
    assert world.asks[0].answer_link == "https://kc/answer/hello-1234567-tc-01/a@example.com"
    assert world.asks[0].expires_at is not None
    assert world.asks[0].expires_at.isoformat() == "2026-11-23T12:01:00+00:00"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [('{"message": "Which year?"}', "Which year?"), ("{broken", "{broken"), ('{"message": 7}', '{"message": 7}')],
)
async def test_a_question_is_the_message_of_the_call(arguments: str, message: str) -> None:
    status = {**WAITING, "status": "AwaitingHumanInput"}
    world = World(call=build_call(status=status, toolType="HumanContact", arguments=arguments))
    await world.handle(kind="Contact")
    assert world.asks[0].message == message


@pytest.mark.parametrize(
    "call",
    [
        build_call(status=WAITING, decision={"approved": True}),
        build_call(status=WAITING, cancel=True),
        build_call(status={"phase": "Succeeded", "status": "Succeeded"}),
        build_call(status={"phase": "Running", "status": "Ready"}),
        build_call("another", status=WAITING),
    ],
    ids=["decided", "cancelled", "ended", "running", "another of its name"],
)
async def test_nobody_is_asked_about_a_call_that_does_not_wait(call: TaskRunToolCall) -> None:
    world = World(call=call)
    await world.handle()
    assert world.asks == []
    assert [result.outcome for result in world.results] == ["Dropped"]


async def test_nobody_is_asked_about_a_call_that_is_gone_or_was_taken_back() -> None:
    gone = World()
    gone.call = None
    await gone.handle()
    taken_back = World(claims={ask_key("default", "hello-1234567-tc-01"): Claim.CANCELLED})
    await taken_back.handle()
    assert [result.outcome for result in (*gone.results, *taken_back.results)] == ["Dropped", "Dropped"]
    assert gone.asks == taken_back.asks == []


async def test_nobody_is_asked_twice_when_an_acknowledgement_was_lost() -> None:
    reported = World(there={human_result_subject("default", "uid-hello-1234567-tc-01")})
    await reported.handle(attempt=2)
    written = World(call=build_call(status={**WAITING, "conditions": [ASKED]}))
    await written.handle(attempt=2)
    assert reported.asks == written.asks == []
    assert reported.published == written.published == []


async def test_a_request_that_may_have_arrived_says_so() -> None:
    world = World(claims={ask_key("default", "hello-1234567-tc-01"): Claim.TAKEN})
    await world.handle(attempt=2)
    assert world.asks[0].again
    assert world.results[0].outcome == "Sent"


async def test_a_request_older_than_the_record_of_claims_may_have_arrived() -> None:
    """The broker lost its storage: that nobody claimed it proves nothing."""
    world = World(record_created_at=NOW + timedelta(seconds=1))
    await world.handle()
    assert world.asks[0].again
    assert world.results[0].outcome == "Sent"


async def test_a_task_that_is_gone_keeps_nobody_from_asking() -> None:
    world = World()
    world.task = None
    await world.handle()
    assert (world.asks[0].agent, world.asks[0].user_message) == ("", "")


async def handle_until_it_waits(world: World, *, attempt: int = 1) -> asyncio.Task[None]:
    """Starts handling; returns once it waits for its next attempt."""
    published, asked = len(world.published), len(world.asks)
    task = asyncio.get_running_loop().create_task(world.handle(attempt=attempt))
    async with asyncio.timeout(5):
        while not task.done() and len(world.published) == published and len(world.asks) == asked:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    await asyncio.sleep(0.01)
    return task


async def test_trouble_is_told_once_and_tried_again_when_something_changes() -> None:
    world = World(trouble=ChannelRefusedError("HumanLayer request failed with status code 403: no"))
    task = await handle_until_it_waits(world)
    notice = world.results[0]
    assert (notice.outcome, notice.reason) == ("Retrying", "HumanLayerRequestFailed")
    assert notice.message == "HumanLayer request failed with status code 403: no"
    assert notice.retry_in_seconds is not None
    assert 15 <= notice.retry_in_seconds <= 30
    assert not task.done()
    world.access.notify_changed()
    with pytest.raises(RetryLater) as caught:
        await task
    assert caught.value.delay == 0
    task = await handle_until_it_waits(world, attempt=2)
    assert len(world.results) == 1
    world.trouble = None
    world.access.notify_changed()
    with pytest.raises(RetryLater):
        await task
    await world.handle(attempt=3)
    assert [result.outcome for result in world.results] == ["Retrying", "Sent"]


async def test_a_missing_secret_is_told_and_waited_for() -> None:
    world = World(secret=None)
    task = await handle_until_it_waits(world)
    assert 'Secret "s" not found in namespace "default"' in world.results[0].message
    assert world.claims == {}
    world.secret = {"k": "1"}
    world.access.notify_changed()
    with pytest.raises(RetryLater):
        await task
    await world.handle(attempt=2)
    assert not world.asks[0].again


async def test_until_the_key_that_signs_is_known_nobody_is_asked() -> None:
    world = World(trouble=KeyUnknownError("it is not known yet whether there is a key"))
    with pytest.raises(RetryLater) as caught:
        await world.handle()
    assert 0 < caught.value.delay <= 10
    assert world.results == []


async def test_a_stop_gives_the_request_back_at_once() -> None:
    world = World(trouble=ChannelUnavailableError("away", retry_after=120))
    task = await handle_until_it_waits(world)
    assert not task.done()
    world.stopping.set()
    with pytest.raises(RetryLater):
        await task
    assert [result.outcome for result in world.results] == ["Retrying"]


async def test_what_waits_for_its_next_attempt_keeps_nobody_from_being_asked() -> None:
    world = World(trouble=ChannelRefusedError("no such address"), turns=asyncio.Semaphore(1))
    waiting = await handle_until_it_waits(world)
    assert not waiting.done()
    world.trouble = None
    async with asyncio.timeout(5):
        await world.handle()
    assert [result.outcome for result in world.results] == ["Retrying", "Sent"]
    world.access.notify_changed()
    with pytest.raises(RetryLater):
        await waiting


async def test_only_so_many_are_asked_at_a_time() -> None:
    world = World(turns=asyncio.Semaphore(2))
    world.gate.clear()
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        for _ in range(5):
            group.create_task(world.handle())
        while len(world.asks) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0)
        world.gate.set()
    assert (len(world.asks), world.most_at_once) == (5, 2)


async def test_a_stop_gives_back_what_waits_for_its_turn() -> None:
    world = World(turns=asyncio.Semaphore(1))
    world.gate.clear()

    async def wait_in_vain() -> None:
        with pytest.raises(RetryLater):
            await world.handle()

    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        group.create_task(world.handle())
        group.create_task(wait_in_vain())
        while not world.asks:  # noqa: ASYNC110
            await asyncio.sleep(0)
        world.stopping.set()
        world.gate.set()
    assert [result.outcome for result in world.results] == ["Sent"]


async def test_a_defect_of_a_channel_is_told_without_its_words() -> None:
    world = World(trouble=RuntimeError("a secret"))
    world.stopping.set()
    with pytest.raises(RetryLater):
        await world.handle()
    assert world.results[0].message == "human-bridge failed unexpectedly (RuntimeError)"


async def test_a_notice_that_cannot_be_published_stops_nothing() -> None:
    world = World(trouble=ChannelUnavailableError("away"), bus_down=True)
    world.stopping.set()
    with pytest.raises(RetryLater):
        await world.handle()
    world.bus_down = False
    with pytest.raises(RetryLater):
        await world.handle(attempt=2)
    assert [result.outcome for result in world.results] == ["Retrying"]


async def test_an_api_server_that_is_away_is_tried_again() -> None:
    world = World(failure=UnavailableError("away", retry_after=3))
    with pytest.raises(RetryLater) as caught:
        await world.handle()
    assert caught.value.delay == 3
    assert world.published == []


async def test_a_right_that_is_missing_is_told() -> None:
    world = World(failure=ForbiddenError("human-bridge may not get taskruntoolcalls"))
    world.stopping.set()
    with pytest.raises(RetryLater):
        await world.handle()
    assert world.results[0].message == "human-bridge may not get taskruntoolcalls"


async def test_a_channel_that_is_not_there_is_told() -> None:
    world = World()
    world.channel = None
    world.stopping.set()
    with pytest.raises(RetryLater):
        await world.handle()
    assert world.results[0].message == 'ContactChannel "c" not found'


async def test_a_request_that_cannot_be_read_shows_in_its_call() -> None:
    world = World()
    await world.worker.handle_poison(Poison("kubechain.human.request.c.default.u-1", b"{", "not JSON", 1, None))
    await world.worker.handle_poison(Poison("elsewhere", b"{", "not JSON", 1, None))
    assert len(world.published) == 1
    subject, notice = world.published[0]
    assert subject == "kubechain.human.result.default.u-1.retry.1"
    assert isinstance(notice, HumanResult)
    assert (notice.outcome, notice.message) == ("Retrying", "human-bridge cannot read the request: not JSON")
