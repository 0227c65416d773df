"""Stands in for human-bridge and the people behind it: each of their steps is one choice of the world, and never half.

What human-bridge itself does when it dies in the middle is tested with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import nats.js.errors
from tests.model.api_server import Wire
from tests.model.jetstream import Message
from tests.model.outside import REFUSAL

from kubechain_common.messages.human import HumanRequest, HumanResult
from kubechain_common.messages.topology import HUMAN_REQUESTS, human_result_subject
from kubechain_common.messaging import codec

if TYPE_CHECKING:
    from tests.model.world import World

CALLS = "taskruntoolcalls"


class People:
    """``choices``: (what happens, making it happen)."""

    def __init__(self, world: World) -> None:
        self._world = world

    def choices(self) -> Iterator[tuple[str, Callable[[], None]]]:
        stream = self._world.nats.streams.get(HUMAN_REQUESTS.name)
        for message in list(stream.messages.values()) if stream else ():
            yield f"a person gets {message.subject}", lambda m=message: self._ask(m)  # type: ignore[misc]
        if not self._world.outside.people_answer:
            return
        for call in self._world.server.all(CALLS):
            if _waits(call) and call["metadata"]["uid"] in self._world.outside.people_asked:
                name = call["metadata"]["name"]
                yield f"a person decides about {name}", lambda c=call: self._decide(c)  # type: ignore[misc]

    def _ask(self, message: Message) -> None:
        """Reads the call, asks unless that is known to be done, reports, and lets the request go."""
        request = codec.decode(HumanRequest, message.data)
        call = self._world.server.find(CALLS, request.call.name)
        if call is not None and call["metadata"]["uid"] == request.call.uid and not _is_asked(call):
            waits = _waits(call)
            if waits:
                self._world.outside.people_asked.add(request.call.uid)
            report = HumanResult(call=request.call, outcome="Sent" if waits else "Dropped")
            subject = human_result_subject(request.call.namespace, request.call.uid)
            with suppress(nats.js.errors.BadRequestError):  # the report is there
                self._world.nats.publish(subject, codec.encode(report), codec.build_headers(once=True))
        self._world.nats.acknowledge(HUMAN_REQUESTS.name, message)
        self._world.after_step()

    def _decide(self, call: Wire) -> None:
        rejected = call["spec"]["target"]["tool"] in self._world.outside.refused
        decision: dict[str, Any] = {"approved": not rejected, **({"comment": REFUSAL} if rejected else {})}
        self._world.patch(CALLS, call["metadata"]["name"], {"spec": {"decision": decision}})


def _waits(call: Wire) -> bool:
    undecided = not call["spec"].get("decision") and not call["spec"].get("cancel")
    return undecided and (call.get("status") or {}).get("status") == "AwaitingHumanApproval"


def _is_asked(call: Wire) -> bool:
    return any(c["type"] == "HumanAsked" for c in call["status"].get("conditions") or ())
