"""JetStream and the client's connection to it, at the level of nats-py's calls.

The real Connection, Streams, Bus, StartedCalls and Consumer run on top. Mirrored of nats-server:

* a work queue drops a message when it is acknowledged; a key-value stream keeps the last one of each subject;
* a Nats-Msg-Id counts as a duplicate for 120 s, even when the first message is consumed or deleted by then;
* ``Nats-Expected-Last-Subject-Sequence`` is refused when it is not that of the subject's message, or 0 for none;
* a delivered message comes again, its count raised, when its ack_wait has passed or it was given back; heartbeats
  renew the wait; an acknowledgement names a place in a stream, whatever lies there now;
* a server that was killed may deliver again, as a first delivery, what was acknowledged a moment ago;
* storage can be lost: streams, consumers and messages are gone, and everybody has to connect anew.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from types import SimpleNamespace
from typing import Any

import nats.errors
import nats.js.errors
from nats.js import api
from tests.model.effects import PROCESS, Effects, Process

from kubechain_common.messages.topology import shared_subject, task_ended_subject, withdrawn_subject
from kubechain_common.messaging.codec import HEADER_EXPECTED_LAST, HEADER_MSG_ID
from kubechain_common.messaging.errors import WRONG_LAST_SEQUENCE

DUPLICATE_WINDOW = 120.0
_KEPT_FOR_RESURRECTION = 3
_CORE = (withdrawn_subject(""), shared_subject(""), task_ended_subject("", "").removesuffix(".."))


@dataclass(frozen=True)
class Message:
    subject: str
    data: bytes
    headers: dict[str, str]
    stored_at: datetime
    sequence: int

    @property
    def seq(self) -> int:
        """Its name in nats-py."""
        return self.sequence


@dataclass
class DurableConsumer:
    """``pending``: when each delivered message may come again; ``delivered``: how often it has come."""

    filter: str
    ack_wait: float
    max_ack_pending: int
    next_sequence: int = 1
    pending: dict[int, float] = field(default_factory=dict)
    delivered: dict[int, int] = field(default_factory=dict)


@dataclass
class Stream:
    config: Any
    created: datetime
    last_sequence: int = 0
    messages: dict[int, Message] = field(default_factory=dict)
    seen_ids: dict[str, float] = field(default_factory=dict)
    consumers: dict[str, DurableConsumer] = field(default_factory=dict)
    acknowledged: list[Message] = field(default_factory=list)

    @property
    def is_work_queue(self) -> bool:
        return bool(self.config.retention == api.RetentionPolicy.WORK_QUEUE)

    def on_subject(self, pattern: str) -> list[Message]:
        return [m for m in self.messages.values() if matches(m.subject, pattern)]

    def drop(self, sequence: int) -> Message | None:
        for consumer in self.consumers.values():
            consumer.pending.pop(sequence, None)
        return self.messages.pop(sequence, None)


class JetStream:
    """The server."""

    def __init__(self, time: Callable[[], float], now: Callable[[], datetime]) -> None:
        self._time = time
        self._now = now
        self.streams: dict[str, Stream] = {}
        self.epoch = 0
        self.kills = 0
        self.subscriptions: list[tuple[ModelClient, str, Any]] = []
        self.spawn: Callable[[Process, Any], None] = lambda process, coroutine: coroutine.close()
        self.observers: list[Callable[[Message], None]] = []

    # --- what clients ask for ---

    def add_stream(self, config: Any) -> Any:
        if config.name not in self.streams:
            self.streams[config.name] = Stream(config, self._now())
        return self.info(config.name)

    def info(self, name: str, subject: str | None = None) -> Any:
        stream = self.stream(name)
        subjects: dict[str, int] = {}
        for message in stream.on_subject(subject) if subject else ():
            subjects[message.subject] = subjects.get(message.subject, 0) + 1
        state = SimpleNamespace(subjects=subjects, messages=len(stream.messages))
        return SimpleNamespace(config=stream.config, created=stream.created, state=state)

    def stream(self, name: str) -> Stream:
        stream = self.streams.get(name)
        if stream is None:
            raise nats.js.errors.NotFoundError(code=404, description="stream not found", err_code=10059)
        return stream

    def publish(self, subject: str, data: bytes, headers: dict[str, str]) -> Any:
        stream = self._stream_of(subject)
        msg_id = headers.get(HEADER_MSG_ID)
        if msg_id is not None and self._is_duplicate(stream, msg_id):
            return SimpleNamespace(duplicate=True, seq=0)
        held = stream.on_subject(subject)
        expected = headers.get(HEADER_EXPECTED_LAST)
        if expected is not None and int(expected) != max((m.sequence for m in held), default=0):
            raise nats.js.errors.BadRequestError(
                code=400, description="wrong last sequence", err_code=WRONG_LAST_SEQUENCE
            )
        if not stream.is_work_queue:
            for old in held:
                stream.drop(old.sequence)
        stream.last_sequence += 1
        message = Message(subject, data, headers, self._now(), stream.last_sequence)
        stream.messages[message.sequence] = message
        if msg_id is not None:
            stream.seen_ids[msg_id] = self._time()
        for observer in self.observers:
            observer(message)
        return SimpleNamespace(duplicate=False, seq=message.sequence)

    def delete(self, name: str, sequence: int) -> dict[str, Any]:
        """What the server answers."""
        if self.stream(name).drop(sequence) is None:
            return {"error": {"code": 400, "err_code": 10043, "description": f"sequence {sequence} not found"}}
        return {"success": True}

    def tell(self, subject: str) -> None:
        for client, pattern, callback in list(self.subscriptions):
            if matches(subject, pattern) and client.is_connected and not client.process.dead:
                self.spawn(client.process, callback(SimpleNamespace(subject=subject)))

    def message(self, name: str, sequence: int) -> Message:
        found = self.stream(name).messages.get(sequence)
        if found is None:
            raise nats.js.errors.NotFoundError(code=404, description="no message found", err_code=10037)
        return found

    def last_message(self, name: str, subject: str) -> Message:
        held = self.stream(name).on_subject(subject)
        if not held:
            raise nats.js.errors.NotFoundError(code=404, description="no message found", err_code=10037)
        return held[-1]

    def add_consumer(self, name: str, config: Any) -> None:
        stream = self.stream(name)
        known = stream.consumers.get(config.durable_name)
        if known is None:
            stream.consumers[config.durable_name] = DurableConsumer(
                config.filter_subject, config.ack_wait, config.max_ack_pending
            )
        else:
            known.max_ack_pending = config.max_ack_pending

    def delete_consumer(self, name: str, durable: str) -> None:
        if self.stream(name).consumers.pop(durable, None) is None:
            raise nats.js.errors.NotFoundError(code=404, description="consumer not found", err_code=10014)

    # --- deliveries ---

    def next_message(self, name: str, durable: str) -> Message | None:
        """What the consumer would deliver now."""
        stream = self.streams.get(name)
        consumer = stream.consumers.get(durable) if stream else None
        if stream is None or consumer is None:
            return None
        again = [s for s, due in consumer.pending.items() if due <= self._time() + 1e-6]
        if again:
            return stream.messages[min(again)]
        if len(consumer.pending) >= consumer.max_ack_pending:
            return None
        for sequence, message in sorted(stream.messages.items()):
            if (
                sequence >= consumer.next_sequence
                and sequence not in consumer.pending
                and matches(message.subject, consumer.filter)
            ):
                return message
        return None

    def deliver(self, name: str, durable: str, message: Message) -> int:
        """Returns the count of this delivery."""
        consumer = self.streams[name].consumers[durable]
        count = consumer.delivered.get(message.sequence, 0) + 1
        consumer.delivered[message.sequence] = count
        if message.sequence not in consumer.pending:  # a redelivery moves nothing on
            consumer.next_sequence = max(consumer.next_sequence, message.sequence + 1)
        consumer.pending[message.sequence] = self._time() + consumer.ack_wait
        return count

    def settle(self, name: str, durable: str, sequence: int, *, again_in: float | None = None) -> None:
        """Acknowledged, or given back for another delivery in ``again_in`` seconds."""
        stream = self.streams.get(name)
        consumer = stream.consumers.get(durable) if stream else None
        if stream is None or consumer is None or sequence not in consumer.pending:
            return
        if again_in is not None:
            consumer.pending[sequence] = self._time() + again_in
        elif (message := stream.drop(sequence)) is not None:
            stream.acknowledged = [*stream.acknowledged, message][-_KEPT_FOR_RESURRECTION:]

    def acknowledge(self, name: str, message: Message) -> None:
        """By somebody whose consumer is no part of the model."""
        stream = self.streams.get(name)
        if stream is not None and stream.drop(message.sequence) is not None:
            stream.acknowledged = [*stream.acknowledged, message][-_KEPT_FOR_RESURRECTION:]

    def renew(self, name: str, durable: str, sequence: int) -> None:
        stream = self.streams.get(name)
        consumer = stream.consumers.get(durable) if stream else None
        if consumer is not None and sequence in consumer.pending:
            consumer.pending[sequence] = self._time() + consumer.ack_wait

    def deadlines(self) -> Iterator[float]:
        for stream in self.streams.values():
            for consumer in stream.consumers.values():
                yield from consumer.pending.values()

    # --- what goes wrong ---

    def lose_storage(self) -> None:
        self.streams = {}
        self.epoch += 1

    def forget_acknowledgements(self) -> None:
        """What a kill -9 does: the last acknowledgements, and who was delivered what, never reached the disk."""
        self.kills += 1
        for stream in self.streams.values():
            for message in stream.acknowledged:
                stream.messages[message.sequence] = message
                for consumer in stream.consumers.values():
                    consumer.delivered.pop(message.sequence, None)
                    consumer.next_sequence = min(consumer.next_sequence, message.sequence)
            stream.acknowledged = []
            kept = {m.headers.get(HEADER_MSG_ID) for m in stream.messages.values()}
            stream.seen_ids = {k: v for k, v in stream.seen_ids.items() if k in kept}

    def expire_waits(self) -> None:
        """Heartbeats were late: whatever is being worked on may be delivered a second time."""
        for stream in self.streams.values():
            for consumer in stream.consumers.values():
                consumer.pending = dict.fromkeys(consumer.pending, self._time())

    def _stream_of(self, subject: str) -> Stream:
        for stream in self.streams.values():
            if any(matches(subject, pattern) for pattern in stream.config.subjects):
                return stream
        raise nats.js.errors.NoStreamResponseError

    def _is_duplicate(self, stream: Stream, msg_id: str) -> bool:
        seen = stream.seen_ids.get(msg_id)
        return seen is not None and self._time() - seen < DUPLICATE_WINDOW


class ModelClient:
    """What our code uses of nats-py's client, for one process. Effects that change or ask the server wait for the
    model; keeping streams and consumers in place, which is idempotent, does not.
    """

    max_payload = 1 << 20

    def __init__(self, server: JetStream, effects: Effects, clients: list[ModelClient], pulls: list[ModelPull]) -> None:
        self.server = server
        self.effects = effects
        self.pulls = pulls
        self.process = PROCESS.get()
        self.is_connected = False
        self.is_closed = False
        self._callbacks: dict[str, Any] = {}
        clients.append(self)

    # the connection

    async def connect(self, url: str, **options: Any) -> None:
        self._callbacks = options
        self.is_connected = True

    async def subscribe(self, subject: str, cb: Any = None) -> Any:
        """Core NATS: a word reaches whoever is connected, or nobody."""
        subscription = (self, subject, cb)
        self.server.subscriptions.append(subscription)

        async def unsubscribe() -> None:
            if subscription in self.server.subscriptions:
                self.server.subscriptions.remove(subscription)

        return SimpleNamespace(unsubscribe=unsubscribe)

    async def drain(self) -> None:
        self.is_closed = True

    async def close(self) -> None:
        self.is_closed = True

    def jetstream(self, timeout: float = 5.0) -> ModelClient:
        return self

    async def lose_connection(self) -> None:
        self.is_connected = False
        await self._callbacks["disconnected_cb"]()

    async def reconnect(self) -> None:
        self.is_connected = True
        await self._callbacks["reconnected_cb"]()

    # JetStream

    async def publish(self, subject: str, payload: bytes = b"", headers: dict[str, str] | None = None) -> Any:
        if subject.startswith(_CORE):
            return await self.effects.perform(f"tell {subject}", lambda: self.server.tell(subject))
        return await self._ask(f"publish {subject}", lambda: self.server.publish(subject, payload, headers or {}))

    async def stream_info(self, name: str, subjects_filter: str | None = None) -> Any:
        what = f"look for {subjects_filter}" if subjects_filter else f"info {name}"
        return await self._ask(what, lambda: self.server.info(name, subjects_filter))

    async def get_msg(self, name: str, seq: int) -> Any:
        return await self._ask(f"read {name}/{seq}", lambda: self.server.message(name, seq))

    async def get_last_msg(self, name: str, subject: str) -> Any:
        return await self._ask(f"read {subject}", lambda: self.server.last_message(name, subject))

    async def request(self, subject: str, payload: bytes, timeout: float) -> Any:
        name, sequence = subject.removeprefix("$JS.API.STREAM.MSG.DELETE."), json.loads(payload)["seq"]
        answer = await self._ask(f"drop {name}/{sequence}", lambda: self.server.delete(name, sequence))
        return SimpleNamespace(data=json.dumps(answer).encode())

    async def add_stream(self, config: Any) -> Any:
        return self.server.add_stream(config)

    async def add_consumer(self, stream: str, config: Any) -> None:
        self.server.add_consumer(stream, config)

    async def delete_consumer(self, stream: str, durable: str) -> None:
        self.server.delete_consumer(stream, durable)
        for pull in self.pulls:
            if (pull.stream, pull.durable) == (stream, durable):
                pull.mark_lost("Consumer Deleted")

    async def _ask(self, label: str, act: Callable[[], Any]) -> Any:
        if not self.is_connected:
            raise nats.errors.TimeoutError
        return await self.effects.perform(label, act, failure=nats.errors.TimeoutError)


class RawMessage:
    """One delivery, as nats-py hands it over."""

    def __init__(self, pull: ModelPull, message: Message, count: int) -> None:
        self._pull = pull
        self.subject = message.subject
        self.data = message.data
        self.headers = message.headers
        self.is_acked = False
        self.metadata = SimpleNamespace(
            num_delivered=count,
            timestamp=message.stored_at,
            sequence=SimpleNamespace(stream=message.sequence, consumer=0),
        )

    async def ack(self) -> None:
        await self._settle("ack", None, confirmed=False)

    async def ack_sync(self, timeout: float = 1.0) -> None:
        await self._settle("ack", None, confirmed=True)

    async def nak(self, delay: float = 0.0) -> None:
        await self._settle("nak", delay, confirmed=False)

    async def term(self) -> None:
        await self._settle("term", None, confirmed=False)

    async def in_progress(self) -> None:
        pull = self._pull
        pull.client.server.renew(pull.stream, pull.durable, self.metadata.sequence.stream)

    async def _settle(self, word: str, again_in: float | None, *, confirmed: bool) -> None:
        self.is_acked = True
        pull = self._pull
        await pull.client.effects.perform(
            f"{word} {self.subject}",
            lambda: pull.client.server.settle(
                pull.stream, pull.durable, self.metadata.sequence.stream, again_in=again_in
            ),
            failure=nats.errors.TimeoutError if confirmed else None,
        )


class ModelPull:
    """Takes the place of messaging.pull.Pull: what was asked for comes when the model delivers it."""

    def __init__(
        self,
        nc: ModelClient,
        stream: str,
        durable: str,
        on_message: Callable[[Any], Awaitable[None]],
        on_change: Callable[[], None],
    ) -> None:
        self.client = nc
        self.stream = stream
        self.durable = durable
        self.on_message = on_message
        self._on_change = on_change
        self.outstanding = 0
        self.lost = ""
        self.proven = True

    @property
    def process(self) -> Process:
        return self.client.process

    async def open(self) -> None:
        self.client.pulls.append(self)

    async def request(self, count: int) -> None:
        self.outstanding += count

    def mark_lost(self, reason: str) -> None:
        if not self.lost:
            self.lost = reason
            self._on_change()

    def check_silence(self) -> None:
        pass

    async def close(self) -> None:
        if self in self.client.pulls:
            self.client.pulls.remove(self)

    def waiting_message(self) -> Message | None:
        if self.lost or self.outstanding <= 0 or not self.client.is_connected:
            return None
        return self.client.server.next_message(self.stream, self.durable)

    def take(self, message: Message) -> RawMessage:
        self.outstanding -= 1
        return RawMessage(self, message, self.client.server.deliver(self.stream, self.durable, message))


def matches(subject: str, pattern: str) -> bool:
    """By the wildcards of NATS: ``*`` is one token, ``>`` all that follow."""
    if "*" not in pattern:
        return subject.startswith(pattern[:-1]) if pattern.endswith(">") else subject == pattern
    tokens, wanted = subject.split("."), pattern.split(".")
    if wanted[-1] == ">":
        tokens, wanted = tokens[: len(wanted) - 1], wanted[:-1]
    return len(tokens) == len(wanted) and all(w in ("*", t) for t, w in zip(tokens, wanted, strict=True))
