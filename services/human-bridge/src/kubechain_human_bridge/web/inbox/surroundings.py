"""What a call does not say itself: which agent it is of, and until when it waits.

The agent is in the Task and never changes; the deadline is the channel's, which the MCPServer of the tool names. What
can not be read is left out: a person can decide without it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

from kubechain_common.api.v1alpha1 import ContactChannel, MCPServer, Task, TaskRunToolCall
from kubechain_common.api.v1alpha1.contactchannel import ContactChannelSpec
from kubechain_common.api.v1alpha1.meta import Resource
from kubechain_common.kube.client import KubeClient
from kubechain_common.kube.errors import KubeError
from kubechain_human_bridge.web.inbox.entries import Json, describe_call, format_moment, is_question
from kubechain_human_bridge.web.inbox.fresh_cache import FreshCache

R = TypeVar("R", bound=Resource)

_READS_AT_ONCE = 8
_AGENT_SECONDS = 3600.0
_CHANNEL_SECONDS = 10.0
_MAX_KNOWN = 4096


@dataclass(frozen=True, slots=True)
class Deadline:
    """Until when a call waits. ``then`` is what happens when nobody has answered."""

    channel: str
    at: datetime | None = None
    then: str = ""


class Surroundings:
    """Reads Tasks, MCPServers and ContactChannels when somebody looks, and keeps what it needs of them."""

    def __init__(self, kube: KubeClient) -> None:
        self._kube = kube
        self._reads = asyncio.Semaphore(_READS_AT_ONCE)
        self._agents: FreshCache[str, str] = FreshCache(_AGENT_SECONDS, _MAX_KNOWN)
        self._channels: FreshCache[tuple[str, str], str] = FreshCache(_CHANNEL_SECONDS, _MAX_KNOWN)
        self._specs: FreshCache[tuple[str, str], ContactChannelSpec | None] = FreshCache(_CHANNEL_SECONDS, _MAX_KNOWN)

    async def describe_all(self, calls: Sequence[TaskRunToolCall]) -> list[Json]:
        return list(await asyncio.gather(*map(self.describe, calls)))

    async def describe(self, call: TaskRunToolCall) -> Json:
        """The call as a list shows it."""
        agent, deadline = await asyncio.gather(self._agent_of(call), self._deadline_of(call))
        return describe_call(call) | {
            "agent": agent,
            "channel": deadline.channel,
            "deadline": format_moment(deadline.at),
            "then": deadline.then,
        }

    async def _agent_of(self, call: TaskRunToolCall) -> str:
        async def ask() -> str:
            return (await self._read(Task, call.namespace, call.spec.task_run_ref.name)).spec.agent_ref.name

        try:
            return await self._agents.look_up(call.uid, ask)
        except KubeError:
            return ""

    async def _deadline_of(self, call: TaskRunToolCall) -> Deadline:
        try:
            channel = await self._channel_of(call)
            spec = await self._spec_of(call.namespace, channel) if channel else None
        except KubeError:
            return Deadline("")
        since = call.status.start_time
        if spec is None or spec.timeout_seconds is None or since is None:
            return Deadline(channel)
        then = "fails" if is_question(call) else {"Approve": "approved"}.get(spec.on_timeout or "", "rejected")
        try:
            return Deadline(channel, since + timedelta(seconds=spec.timeout_seconds), then)
        except OverflowError:
            return Deadline(channel)

    async def _channel_of(self, call: TaskRunToolCall) -> str:
        target = call.spec.target.name if call.spec.target is not None else ""
        if is_question(call) or not target:
            return target

        async def ask() -> str:
            reference = (await self._read(MCPServer, call.namespace, target)).spec.approval_contact_channel
            return reference.name if reference is not None else ""

        return await self._channels.look_up((call.namespace, target), ask)

    async def _spec_of(self, namespace: str, channel: str) -> ContactChannelSpec | None:
        async def ask() -> ContactChannelSpec | None:
            return (await self._read(ContactChannel, namespace, channel)).spec

        return await self._specs.look_up((namespace, channel), ask)

    async def _read(self, kind: type[R], namespace: str, name: str) -> R:
        async with self._reads:
            return await self._kube.get(kind, namespace, name)
