"""A call goes to the replica that has its session: it is run there, and answered there.

The request stays with whoever took it from the stream (the asker): it keeps it alive, counts against maxConcurrency and
is acknowledged once the owner has published the result. If the asker dies the request comes again, to somebody who
asks again, and the owner adds that to the run that is under way. If the owner falls silent the asker asks again, and in
the end the session has another owner, for which the call's claim says whether it had begun.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from enum import StrEnum

from kubechain_common.messages import ToolRequest
from kubechain_common.messages.peers import HandOver, HandOverNews
from kubechain_common.messages.topology import TOOL_REQUESTS, handover_subject
from kubechain_common.messaging import Bus, Delivery, MessagingError
from kubechain_common.messaging.errors import HandlerSignal
from kubechain_common.messaging.peers import Answer, NobodyThereError
from kubechain_common.telemetry.logging import get_logger

log = get_logger(__name__)

NEWS_SECONDS = 3.0
SILENCE_SECONDS = 10.0

RunHere = Callable[[str, Delivery[ToolRequest]], Awaitable[bool]]
"""Runs the request in the session, and publishes its result. False when the session is not here."""


class HandedOver(StrEnum):
    """What came of handing a call over, for the asker."""

    DONE = "Done"
    REFUSED = "Refused"
    FAILED = "Failed"
    NOBODY = "Nobody"


async def hand_over(bus: Bus, instance: str, session: str, delivery: Delivery[ToolRequest]) -> HandedOver:
    """Has the owner run the request; returns when it has, or will not. Raises MessagingError.

    When cancelled, it has the owner look whether the request was taken back.
    """
    subject = handover_subject(instance)
    question = HandOver(
        session=session,
        subject=delivery.subject,
        sequence=delivery.sequence,
        attempt=delivery.attempt,
        new_since=delivery.new_since,
    )
    try:
        while True:
            async with bus.peers.ask(subject, question, HandOverNews) as answers:
                while (said := await answers.next(SILENCE_SECONDS)) is not None:
                    if said.news != "Working":
                        return HandedOver(said.news)
            log.info("no news of a call that was handed over; asking again", session=session, replica=instance)
    except NobodyThereError:
        return HandedOver.NOBODY
    except asyncio.CancelledError:
        await bus.peers.tell(subject, question.model_copy(update={"cancelled": True}))
        raise


class _Run:
    def __init__(self, answer: Answer) -> None:
        self.answers = [answer]
        self.task: asyncio.Task[None] | None = None
        self.taken_back = False

    async def say(self, news: HandOverNews) -> None:
        for answer in self.answers:
            await answer(news)


class HandOvers:
    """The owner's side of handing over."""

    def __init__(self, bus: Bus, instance: str, run_here: RunHere) -> None:
        self._bus = bus
        self._instance = instance
        self._run_here = run_here
        self._runs: dict[str, _Run] = {}
        self._group: asyncio.TaskGroup

    async def run(self) -> None:
        """Takes what others hand over; until cancelled."""
        subject = handover_subject(self._instance)
        async with asyncio.TaskGroup() as self._group, self._bus.peers.answering(subject, HandOver, self._handle):
            await asyncio.Event().wait()

    def _handle(self, question: HandOver, answer: Answer) -> None:
        run = self._runs.get(question.subject)
        if question.cancelled:
            if run is not None:
                self._group.create_task(self._stop_if_gone(question.sequence, run))
            return
        if run is not None:
            run.answers.append(answer)
            return
        run = self._runs[question.subject] = _Run(answer)
        run.task = self._group.create_task(self._run(question, run))

    async def _run(self, question: HandOver, run: _Run) -> None:
        news = HandOverNews(news="Failed")
        async with asyncio.TaskGroup() as telling:
            teller = telling.create_task(self._tell_of(run))
            try:
                news = HandOverNews(news=await self._execute(question))
            except (MessagingError, HandlerSignal) as error:
                log.warning("a call that was handed over did not begin", session=question.session, error=str(error))
            except asyncio.CancelledError:
                if run.taken_back:
                    news = HandOverNews(news="Done")
                raise
            except Exception:
                log.exception("a call that was handed over failed", session=question.session)
            finally:
                del self._runs[question.subject]
                teller.cancel()
                await run.say(news)

    async def _execute(self, question: HandOver) -> str:
        found = await self._bus.read(TOOL_REQUESTS.name, question.sequence, ToolRequest)
        if found is None or found.subject != question.subject:
            return "Failed"  # it was taken back, or the stream was lost: whoever asked finds out which
        delivery = Delivery(
            found.message,
            question.attempt,
            found.trace,
            found.subject,
            found.stored_at,
            found.sequence,
            question.new_since,
        )
        return "Done" if await self._run_here(question.session, delivery) else "Refused"

    async def _tell_of(self, run: _Run) -> None:
        while True:
            await run.say(HandOverNews(news="Working"))
            await asyncio.sleep(NEWS_SECONDS)

    async def _stop_if_gone(self, sequence: int, run: _Run) -> None:
        try:
            gone = await self._bus.connection.has_dropped(TOOL_REQUESTS.name, sequence)
        except MessagingError as error:
            log.debug("cannot look for a cancelled call", error=str(error))
            return
        if gone and run.task is not None:
            run.taken_back = True
            run.task.cancel()
