"""What the client's errors become."""

from __future__ import annotations

import asyncio

import nats.errors
import nats.js.errors
import pytest

from kubechain_common.messaging import BusClosedError, BusUnavailableError, MessagingError, PublishRefusedError
from kubechain_common.messaging.client import cancellable
from kubechain_common.messaging.errors import translate


@pytest.mark.parametrize(
    ("error", "kind", "retryable"),
    [
        (nats.errors.TimeoutError(), BusUnavailableError, True),
        (TimeoutError(), BusUnavailableError, True),
        (ConnectionResetError(), BusUnavailableError, True),
        (nats.js.errors.ServiceUnavailableError(), BusUnavailableError, True),
        (nats.errors.OutboundBufferLimitError(), BusUnavailableError, True),
        (nats.errors.ConnectionClosedError(), BusClosedError, False),
        (nats.js.errors.BadRequestError(code=400, description="bad"), PublishRefusedError, False),
        (nats.js.errors.BadRequestError(code=400, err_code=10005, description="no peers"), BusUnavailableError, True),
    ],
)
def test_an_error_says_what_was_being_done_and_whether_to_retry(
    error: Exception, kind: type[MessagingError], retryable: bool
) -> None:
    translated = translate(error, "publishing a.b.c")
    assert type(translated) is kind
    assert translated.retryable is retryable
    assert "publishing a.b.c" in str(translated)


def test_an_error_of_ours_stays_what_it_is() -> None:
    error = BusUnavailableError("x")
    assert translate(error, "anything") is error


async def test_a_cancellation_that_meets_the_answer_is_not_lost() -> None:
    answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def request() -> str:
        return await asyncio.wait_for(answer, 5)

    async def loop() -> None:
        await cancellable(request())
        pytest.fail("it was told to end")

    async with asyncio.TaskGroup() as group:
        task = group.create_task(loop())
        await asyncio.sleep(0)
        answer.set_result("now")
        task.cancel()
    assert task.cancelled()
