"""What the roads over HTTP have in common: the channel they belong to, answers that are accounted for, and what is said
when the API server fails them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from kubechain_common.api.v1alpha1 import ContactChannel
from kubechain_common.api.v1alpha1.taskruntoolcall import Decision, HumanResponse
from kubechain_common.kube.errors import ForbiddenError, KubeError, UnavailableError
from kubechain_common.messages import ObjectRef
from kubechain_common.telemetry.logging import get_logger
from kubechain_human_bridge.answers.answers import Answers, Outcome, UncertainAnswerError, Verdict
from kubechain_human_bridge.audit import Audit, Refusal
from kubechain_human_bridge.contactchannels.access import ChannelAccess
from kubechain_human_bridge.contactchannels.secrets import ChannelSecrets

_STATUS = {
    Outcome.ACCEPTED: 200,
    Outcome.TOO_LATE: 409,
    Outcome.GONE: 404,
    Outcome.NOT_ASKED: 409,
    Outcome.INVALID: 422,
}
_NOT_NOW = "The cluster can not be reached. Nothing was changed: try again soon."
_UNCERTAIN = "The cluster does not tell whether it took the answer. Try again soon: one answer counts, the first."
_NO_RIGHT = "KubeChain itself lacks a right that this takes. Its log says which."
_REFUSED = "The cluster refuses what KubeChain asks of it, and trying again does not help. KubeChain's log says why."

_log = get_logger(__name__)


@dataclass(frozen=True)
class FoundChannel:
    """A ContactChannel and its secrets, by the name of the field that refers to them (``signingSecretFrom``)."""

    channel: ContactChannel
    secrets: Mapping[str, str] = field(repr=False)


class ChannelLookup(Protocol):
    """Finds channels, secrets included."""

    async def find_channel(self, namespace: str, name: str) -> FoundChannel | None:
        """The channel as it is now; None when there is none, or its secrets are missing.

        Raises:
            KubeError: the API server could not be asked.
        """
        ...


class NamedChannels:
    """Looks channels up among those that the service knows. Until it knows them (``known``), nobody is turned away."""

    def __init__(self, access: ChannelAccess, known: Callable[[], bool]) -> None:
        self._access = access
        self._known = known

    async def find_channel(self, namespace: str, name: str) -> FoundChannel | None:
        if not self._known():
            raise UnavailableError("the channels are not known yet")
        channel = self._access.find_named(namespace, name)
        secrets = await self._access.read_secrets(channel) if channel is not None else None
        if channel is None or not isinstance(secrets, ChannelSecrets):
            return None
        return FoundChannel(channel, secrets.values)


class AuditedAnswers:
    """Gives answers, and tells of those that were not taken."""

    def __init__(self, answers: Answers, audit: Audit) -> None:
        self._answers = answers
        self._audit = audit

    async def give(self, call: ObjectRef, answer: Decision | HumanResponse, road: str) -> Verdict:
        """Gives the answer, and tells of a refusal; what came of it. Raises KubeError: see ``answers``."""
        if isinstance(answer, Decision):
            verdict = await self._answers.decide(call, answer)
        else:
            verdict = await self._answers.respond(call, answer)
        if not verdict.accepted:
            refusal = Refusal(road, verdict.outcome.value, verdict.sentence, answer.by or "")
            if verdict.outcome is Outcome.GONE:
                self._audit.refused_unknown(refusal)
            else:
                self._audit.refused_call(call, refusal)
        return verdict


@dataclass(frozen=True)
class Trouble:
    """What is said in place of an answer's verdict; ``passes`` says that trying again may help."""

    sentence: str
    passes: bool

    @property
    def status(self) -> int:
        return 503 if self.passes else 500


def describe_trouble(error: KubeError) -> Trouble:
    """What the person is told of the error. Pure."""
    if isinstance(error, UncertainAnswerError):
        return Trouble(_UNCERTAIN, passes=True)
    if error.retryable:
        return Trouble(_NOT_NOW, passes=True)
    return Trouble(_NO_RIGHT if isinstance(error, ForbiddenError) else _REFUSED, passes=False)


def log_trouble(error: KubeError, road: str) -> Trouble:
    """What the person is told of the error; the log gets the words of the API server."""
    trouble = describe_trouble(error)
    log = _log.warning if trouble.passes else _log.error
    log("the api server failed an answer", road=road, error=str(error))
    return trouble


def status_of(verdict: Verdict) -> int:
    """The HTTP status for what came of an answer."""
    return _STATUS[verdict.outcome]
