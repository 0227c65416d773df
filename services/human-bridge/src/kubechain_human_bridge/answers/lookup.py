"""Looks for an answer on the other side of a channel, and writes it into the call."""

from __future__ import annotations

from kubechain_common.api.v1alpha1 import ContactChannel
from kubechain_common.api.v1alpha1.taskruntoolcall import Decision, HumanResponse
from kubechain_common.messages import ObjectRef
from kubechain_common.runtime.clock import now
from kubechain_common.telemetry.logging import get_logger
from kubechain_human_bridge.answers.answers import Answers, Verdict
from kubechain_human_bridge.channels.base import Given, Kind, PolledChannel
from kubechain_human_bridge.contactchannels.access import ChannelAccess

log = get_logger(__name__)

_MAX_BY = 253


class AnswerLookup:
    """What the answer checks and the webhook of HumanLayer share."""

    def __init__(self, access: ChannelAccess, answers: Answers) -> None:
        self._access = access
        self._answers = answers

    async def look(self, call: ObjectRef, channel: ContactChannel, kind: Kind, external_call_id: str) -> Verdict | None:
        """What came of the answer that was found; None while there is none.

        Raises ChannelError when the other side cannot be asked, and KubeError when the answer cannot be written.
        """
        async with self._access.open(channel) as client:
            if not isinstance(client, PolledChannel):
                return None
            given = await client.find_answer(external_call_id, kind)
        if given is None:
            return None
        verdict = await self._write(call, kind, given)
        log.info("answer found", namespace=call.namespace, call=call.name, outcome=verdict.outcome)
        return verdict

    async def _write(self, call: ObjectRef, kind: Kind, given: Given) -> Verdict:
        by = f"humanlayer:{given.by}"[:_MAX_BY]
        if kind == "Contact":
            answer = HumanResponse(message=given.response, by=by, via="humanlayer", at=now())
            return await self._answers.respond(call, answer)
        decision = Decision(
            approved=given.approved is True, comment=given.comment or None, by=by, via="humanlayer", at=now()
        )
        return await self._answers.decide(call, decision)
