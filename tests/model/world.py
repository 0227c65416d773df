"""The whole system in one deterministic process: what may happen next, and making it happen.

``choices`` lists every step that some part of the world could take now: an effect that a process waits for, a watch
that tells its next change, a message that is delivered, a reconnect, the garbage collector. A scheduler (Hypothesis, or
``settle``'s fair one) picks. Faults are methods of their own.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.model.api_server import ApiServer, ModelKube, ModelWatch, Snapshot
from tests.model.effects import PROCESS, Effect, Effects, Fate, Process
from tests.model.invariants import Invariants
from tests.model.jetstream import JetStream, Message, ModelClient, ModelPull
from tests.model.loop import VirtualLoop
from tests.model.outside import CHANNEL, GUARDED, HELPER, REFUSED, SERVER, TOOLS, Outside, Turn
from tests.model.people import People
from tests.model.processes import LED, LLM_GATEWAY, SERVICES, installed, run_process

START = datetime(2026, 1, 1, tzinfo=UTC)
NAMESPACE = "default"
_A_STEP = 1e-4
_SETTLED_WITHIN = 1800.0
"""Seconds of the world's time in which everything has to end once nothing goes wrong any more."""


@dataclass(frozen=True)
class Choice:
    label: str
    take: Callable[[], None]


class World:
    """Use with ``opened``."""

    def __init__(self) -> None:
        self.loop = VirtualLoop()
        self.loop.set_task_factory(self._create_task)
        self.effects = Effects(self.loop)
        self.server = ApiServer(lambda: self.now().strftime("%Y-%m-%dT%H:%M:%SZ"))
        self.nats = JetStream(self.loop.time, self.now)
        self.nats.spawn = self.run_in
        self.outside = Outside(self.effects)
        self.people = People(self)
        self.clients: list[ModelClient] = []
        self.pulls: list[ModelPull] = []
        self.watches: list[ModelWatch] = []
        self.processes: list[Process] = []
        self.errors: list[str] = []
        self.slow_watch: tuple[str, str] | None = None
        self.supervised = True
        self.fates: dict[int, Fate] = {}
        self.settled = 0
        self._created = 0
        self.invariants = Invariants(self)

    @classmethod
    @contextmanager
    def opened(cls) -> Iterator[World]:
        """A world with one LLM, one MCPServer, one Agent and every service running."""
        random.seed(0)
        world = cls()
        with installed(world):
            try:
                world._apply_basics()
                for service in SERVICES:
                    world.start(service)
                world.settle(seconds=10.0, stop=lambda: False)
                world.settled = 0
                world.effects.trace.clear()
                yield world
            finally:
                world.close()

    def now(self) -> datetime:
        return START + timedelta(seconds=self.loop.time())

    def new_client(self) -> ModelClient:
        return ModelClient(self.nats, self.effects, self.clients, self.pulls)

    def new_pull(self, *options: Any) -> ModelPull:
        return ModelPull(*options)

    # --- processes ---

    def start(self, service: str) -> Process:
        """A new replica; of a service with a leader, it leads."""
        process = Process(service, f"{service}-{sum(p.service == service for p in self.processes)}")
        self.processes.append(process)
        if service in LED:
            for earlier in self.living(service)[:-1]:
                earlier.overtaken = True
            process.granted.set()
        kube = ModelKube(self.server, self.effects, self.watches)
        self.run_in(process, run_process(service, kube, self))
        return process

    def run_in(self, process: Process, coroutine: Any) -> None:
        context = contextvars.copy_context()
        context.run(PROCESS.set, process)
        context.run(self.loop.create_task, coroutine)
        self.loop.run_ready()

    def crash(self, process: Process) -> None:
        """The process is gone between two instructions: nothing of what it would still do reaches the world."""
        process.dead = True
        self.effects.pending = [e for e in self.effects.pending if e.process is not process]
        while tasks := [task for task in process.tasks if not task.done()]:
            for task in tasks:
                task.cancel()
            self.loop.run_ready()
        process.tasks.clear()
        self.effects.pending = [e for e in self.effects.pending if e.process is not process]
        self.pulls = [p for p in self.pulls if p.process is not process]
        for client in self.clients:
            client.pulls = self.pulls
        self.clients = [c for c in self.clients if c.process is not process]
        self.nats.subscriptions = [s for s in self.nats.subscriptions if s[0].process is not process]

    def living(self, service: str | None = None) -> list[Process]:
        return [p for p in self.processes if not p.dead and service in (None, p.service)]

    def gateways(self) -> list[Process]:
        """All that ever ran."""
        return [p for p in self.processes if p.service == LLM_GATEWAY]

    def close(self) -> None:
        for process in self.living():
            self.crash(process)
        self.loop.close()

    def _create_task(self, loop: Any, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(coroutine, loop=loop, **options)
        process = options["context"].get(PROCESS) if options.get("context") else PROCESS.get(None)
        if process is not None:
            process.tasks = [t for t in process.tasks if not t.done()] if len(process.tasks) > 500 else process.tasks
            process.tasks.append(task)
        return task

    # --- what may happen ---

    def choices(self) -> list[Choice]:
        return list(self._offer_choices())

    def _offer_choices(self) -> Iterator[Choice]:
        """Lazily: most runs take the first choice of each step, and need not know the others."""
        for effect in self.effects.pending:
            yield Choice(str(effect), lambda e=effect: self.settle_effect(e))  # type: ignore[misc]
        slow: list[Choice] = []
        for watch in self.watches:
            if watch.behind:
                label = f"{watch.process}: sees a change of {watch.plural}"
                choice = Choice(label, lambda w=watch: self._advance(w))  # type: ignore[misc]
                if (watch.process.service, watch.plural) == self.slow_watch:
                    slow.append(choice)
                else:
                    yield choice
        yield from self._offer_deliveries()
        for client in self.clients:
            if not client.is_connected:
                yield Choice(f"{client.process}: reconnects", lambda c=client: self._reconnect(c))  # type: ignore[misc]
        for label, take in self.people.choices():
            yield Choice(label, take)
        for key in self.server.garbage():
            yield Choice(f"gc deletes {key[2]}", lambda k=key: self._collect(k))  # type: ignore[misc]
        if self.supervised:
            for service in SERVICES:
                if not self.living(service):
                    yield Choice(f"{service} starts again", lambda s=service: self._restart(s))  # type: ignore[misc]
        yield from slow

    def _offer_deliveries(self) -> Iterator[Choice]:
        offered: set[tuple[str, int]] = set()
        for pull in self.pulls:
            message = pull.waiting_message()
            if message is not None and (pull.durable, message.sequence) not in offered:
                offered.add((pull.durable, message.sequence))
                label = f"{pull.process}: gets {message.subject}"
                yield Choice(label, lambda p=pull, m=message: self._deliver(p, m))  # type: ignore[misc]

    def step(self, number: int) -> str:
        """Takes the choice of this number, counted round; nothing when nothing can happen."""
        choices = self.choices()
        if not choices:
            return ""
        choice = choices[number % len(choices)]
        self._take(choice)
        return choice.label

    def settle_effect(self, effect: Effect, fate: Fate | None = None) -> None:
        """``fate``: by default the one that ``fates`` holds for the number of this effect."""
        fate = fate or self.fates.get(self.settled, Fate.DONE)
        self.settled += 1
        self.effects.settle(effect, fate)
        if fate in (Fate.CRASH_BEFORE, Fate.CRASH_AFTER):
            self.crash(effect.process)
        self.after_step()

    def after_step(self) -> None:
        self.loop.run_ready()
        self.invariants.check()

    def advance_time(self, seconds: float) -> None:
        end = self.loop.time() + seconds
        while (timer := self.loop.next_timer()) is not None and timer <= end:
            self.loop.advance_to(timer)
            self.after_step()
        self.loop.advance_to(end)
        self.after_step()

    def settle(self, *, stop: Callable[[], bool] | None = None, seconds: float = _SETTLED_WITHIN) -> None:
        """Fair scheduling, oldest first, and time as it is needed, until ``stop`` (every Task has ended)."""
        deadline = self.loop.time() + seconds
        stop = stop or self.is_quiet
        while self.loop.time() < deadline:
            while choice := next(self._offer_choices(), None):
                self._take(choice)
            if stop():
                return
            upcoming = [due for due in self.nats.deadlines() if due > self.loop.time()]
            timer = self.loop.next_timer()
            if timer is not None:
                upcoming.append(timer)
            if not upcoming:
                return
            self.loop.advance_to(min(upcoming))
            self.after_step()

    def is_quiet(self) -> bool:
        """Every Task and call has ended, and no result waits to be taken."""
        results = [m for name, s in self.nats.streams.items() if name.endswith("_RESULTS") for m in s.messages]
        return not self.invariants.unfinished() and not results

    # --- what people do ---

    def create_task(self, script: tuple[Turn, ...], name: str = "", **spec: object) -> str:
        """A Task whose model and tools behave by ``script``; returns its name."""
        self._created += 1
        name = name or f"t{self._created}"
        user_message = f"script {self._created}"
        self.outside.scripts[user_message] = script
        body = {"agentRef": {"name": "agent"}, "userMessage": user_message, **spec}
        self.apply("tasks", "Task", name, body)
        return name

    def apply(self, plural: str, kind: str, name: str, spec: Any, status: Any = None) -> None:
        body = {
            "apiVersion": "kubechain.humanlayer.dev/v1alpha1",
            "kind": kind,
            "metadata": {"name": name},
            "spec": spec,
        }
        key = (plural, NAMESPACE, name)
        if key not in self.server.objects:
            self.server.create(key, body, "user")
        else:
            self.server.patch(key, {"spec": spec}, "user")
        if status is not None:
            self.server.patch(key, {"status": status}, "user", "status")
        self.after_step()

    def patch(self, plural: str, name: str, body: Any, subresource: str = "") -> None:
        self.server.patch((plural, NAMESPACE, name), body, "user", subresource)
        self.after_step()

    def delete(self, plural: str, name: str) -> None:
        self.server.delete((plural, NAMESPACE, name), {}, "user")
        self.after_step()

    # --- what goes wrong ---

    def lose_storage(self) -> None:
        """JetStream comes back without anything."""
        self.nats.lose_storage()
        self._disconnect_all()

    def kill_nats(self) -> None:
        """JetStream comes back without the last acknowledgements."""
        self.nats.forget_acknowledgements()
        self._disconnect_all()

    def restore_api_server(self, snapshot: Snapshot, after: float) -> None:
        """As docs/operations.md says: the services are stopped, and started when etcd is back; JetStream stays."""
        for process in self.living():
            self.crash(process)
        self.advance_time(after)
        self.server.restore(snapshot)
        self.invariants.allow_turns_again()
        for service in SERVICES:
            self.start(service)
        self.after_step()

    def _disconnect_all(self) -> None:
        for client in list(self.clients):
            if client.is_connected:
                self.run_in(client.process, client.lose_connection())
        for effect in list(self.effects.pending):
            if effect.failure is not None and effect.label.split()[0] in _NATS_WORDS:
                self.effects.settle(effect, Fate.REFUSED)
        self.after_step()

    # --- inside ---

    def _take(self, choice: Choice) -> None:
        self.effects.trace.append(choice.label)
        self.loop.advance_to(self.loop.time() + _A_STEP)  # no two messages are stored in the same instant
        choice.take()

    def _restart(self, service: str) -> None:
        self.start(service)
        self.after_step()

    def _advance(self, watch: ModelWatch) -> None:
        watch.advance()
        self.after_step()

    def _deliver(self, pull: ModelPull, message: Message) -> None:
        self.run_in(pull.process, pull.on_message(pull.take(message)))
        self.after_step()

    def _reconnect(self, client: ModelClient) -> None:
        self.run_in(client.process, client.reconnect())
        self.after_step()

    def _collect(self, key: tuple[str, str, str]) -> None:
        if key in self.server.objects:
            self.server.delete(key, {}, "gc")
        self.after_step()

    def _apply_basics(self) -> None:
        for name in ("llm", "llm2"):
            parameters = {"model": name, "baseUrl": "http://model"}
            self.apply("llms", "LLM", name, {"provider": "openai", "parameters": parameters}, _READY)
        self.apply_channel()
        self.apply_server()
        self.apply(
            "agents", "Agent", "agent", {"llmRef": {"name": "llm"}, "system": "s", "mcpServers": [{"name": SERVER}]}
        )
        helper = {"llmRef": {"name": "llm"}, "system": "s", "mcpServers": [{"name": SERVER}]}
        self.apply("agents", "Agent", HELPER, helper)
        self.apply("agents", "Agent", "boss", {**helper, "subAgents": [{"name": HELPER}]})

    def apply_channel(self) -> None:
        self.apply("contactchannels", "ContactChannel", CHANNEL, {"type": "inbox"}, _READY)

    def apply_server(self) -> None:
        spec = {
            "transport": "stdio",
            "command": "tools",
            "approvalContactChannel": {"name": CHANNEL},
            "approval": {"tools": [GUARDED, REFUSED]},
        }
        status = {**_READY, "connected": True, "tools": [tool.to_wire() for tool in TOOLS]}
        self.apply("mcpservers", "MCPServer", SERVER, spec, status)


_READY = {"ready": True, "status": "Ready", "observedGeneration": 1}
_NATS_WORDS = frozenset({"publish", "tell", "look", "info", "read", "drop", "ack", "nak", "term"})
