"""A stdio server's process as a pair of streams for ``mcp.Client``.

In place of the SDK's ``stdio_client``, which keeps an endless line in memory without a bound. The guard
(``stdio_guard.py``) ends the server's whole tree; here only the guard has to be waited for.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import TextIO

import anyio
from anyio.abc import ByteReceiveStream, ByteSendStream, Process
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.client._transport import TransportStreams
from mcp.client.stdio import get_default_environment
from mcp.shared.message import SessionMessage

from kubechain_mcp_host import stdio_guard
from kubechain_mcp_host.guard import environment
from kubechain_mcp_host.stdio.launch import Launch
from kubechain_mcp_host.stdio.message_reader import FloodError, MessageReader

_CHUNK = 256 * 1024
_FLUSH_SECONDS = 0.5
_LEAVE_SECONDS = 2.0
_TERM_SECONDS = 3.5
"""Both are a little more than the guard itself gives the server."""

_GONE = (anyio.EndOfStream, anyio.ClosedResourceError, anyio.BrokenResourceError, OSError)


@asynccontextmanager
async def run_stdio_server(
    launch: Launch, report: int, stderr: TextIO, on_flood: Callable[[str], None]
) -> AsyncIterator[TransportStreams]:
    """Starts the server under the guard; it has ended when the context is left. Raises OSError if it can not start.

    ``report`` is the descriptor on which the guard tells why it ended the server; ``on_flood`` gets the end of a
    sentence when the server's output has broken all bounds; its stream ends then.
    """
    packed = environment.pack({**get_default_environment(), **launch.environment})
    # A cancellation while it is started, or before the task group is entered, would leave the process behind.
    with anyio.CancelScope(shield=True):
        process = await anyio.open_process(
            # -I and -S: neither PYTHON* variables nor our packages concern the guard, and it starts in 15 ms.
            [sys.executable, "-I", "-S", stdio_guard.__file__, *launch.orders.to_arguments(report, len(packed))],
            env=environment.OF_GUARD,
            cwd=launch.cwd,
            stderr=stderr,
            pass_fds=[fd for fd in (report, launch.orders.ports) if fd >= 0],
            start_new_session=True,
        )
    assert process.stdin is not None
    assert process.stdout is not None
    to_session, received = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    sent, from_session = anyio.create_memory_object_stream[SessionMessage](0)
    flushed = anyio.Event()
    async with anyio.create_task_group() as group:
        group.start_soon(_read, process.stdout, to_session, on_flood)
        group.start_soon(_write, process.stdin, packed, from_session, to_session, flushed)
        try:
            yield received, sent
        finally:
            with anyio.CancelScope(shield=True):
                received.close()  # from here on the reader only drains: a server that is stuck in a print can leave
                sent.close()
                with anyio.move_on_after(_FLUSH_SECONDS):
                    await flushed.wait()
                await _end(process)
            group.cancel_scope.cancel()


async def _read(
    stdout: ByteReceiveStream,
    to_session: MemoryObjectSendStream[SessionMessage | Exception],
    on_flood: Callable[[str], None],
) -> None:
    reader = MessageReader()
    with suppress(*_GONE):
        try:
            async with to_session:
                while True:
                    for message in reader.feed(await stdout.receive(_CHUNK)):
                        await to_session.send(SessionMessage(message))
        except FloodError as flood:
            on_flood(str(flood))
        except (anyio.ClosedResourceError, anyio.BrokenResourceError):
            pass  # the session has gone
        while True:
            await stdout.receive(_CHUNK)


async def _write(
    stdin: ByteSendStream,
    packed: bytes,
    from_session: MemoryObjectReceiveStream[SessionMessage],
    to_session: MemoryObjectSendStream[SessionMessage | Exception],
    flushed: anyio.Event,
) -> None:
    try:
        async with from_session:
            await stdin.send(packed)
            async for item in from_session:
                text = item.message.model_dump_json(by_alias=True, exclude_unset=True)
                await stdin.send(text.encode() + b"\n")
    except _GONE:
        # The server may live on with its stdin closed: the session has to learn that nobody hears it.
        await to_session.aclose()
    finally:
        flushed.set()


async def _end(process: Process) -> None:
    """Closes stdin, which tells server and guard to leave; then insists."""
    assert process.stdin is not None
    with suppress(*_GONE):
        await process.stdin.aclose()
    for seconds, insist in ((_LEAVE_SECONDS, process.terminate), (_TERM_SECONDS, process.kill)):
        with anyio.move_on_after(seconds):
            await process.wait()
            break
        with suppress(ProcessLookupError):
            insist()
    else:
        with anyio.move_on_after(_LEAVE_SECONDS):
            await process.wait()
    with anyio.move_on_after(_FLUSH_SECONDS):
        await process.aclose()
