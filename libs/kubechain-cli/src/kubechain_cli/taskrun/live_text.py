"""Hears what the model writes for a Task, by way of NATS, for as long as somebody wants to read it."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable

from kubechain_cli.taskrun.errors import LiveTextError
from kubechain_common.api.v1alpha1 import Task
from kubechain_common.messages import LISTENING_SECONDS, LLMDelta, LLMListening
from kubechain_common.messages.topology import llm_delta_subject, llm_listening_subject


async def hear_text(url: str, task: Task, take: Callable[[LLMDelta], None]) -> None:
    """Call ``take`` with what is written; until cancelled. Raises ``LiveTextError`` when NATS cannot be reached."""
    # Only those who follow a Task need it, and what else is there to see does not wait for the import.
    await asyncio.to_thread(importlib.import_module, "kubechain_common.messaging")
    from kubechain_common.messaging import BusUnavailableError, Listener, PoisonMessage
    from kubechain_common.messaging.codec import decode

    async def hear(listener: Listener) -> None:
        async for data in listener:
            try:
                take(decode(LLMDelta, data))
            except PoisonMessage:
                continue  # of a version that we do not know

    try:
        async with (
            Listener.open(url, "kubechain-cli", llm_delta_subject(task.namespace, task.uid)) as listener,
            asyncio.TaskGroup() as group,
        ):
            group.create_task(hear(listener))
            fresh = True
            while True:
                await listener.tell(llm_listening_subject(task.namespace, task.uid), LLMListening(fresh=fresh))
                fresh = False
                await asyncio.sleep(LISTENING_SECONDS / 3)
    except BusUnavailableError as error:
        raise LiveTextError(str(error)) from None
