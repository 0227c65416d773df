"""What the bridge asks of a channel. A channel knows neither Kubernetes nor the bus."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol, runtime_checkable

from kubechain_common.messages import ObjectRef
from kubechain_common.messages.human import REASON_REQUEST_FAILED, REASON_REQUEST_SENT

Kind = Literal["Approval", "Contact"]


@dataclass(frozen=True)
class Ask:
    """One request to a person.

    ``arguments`` is the JSON text of the call that waits for approval, ``message`` the question of a contact. ``again``
    says that an earlier attempt may have reached the person. The links are for channels whose message has none of its
    own way back: ``page_link`` shows the request, ``answer_link`` takes one answer without signing in.
    """

    call: ObjectRef
    kind: Kind
    external_call_id: str
    run_id: str
    task: str
    agent: str
    tool: str
    arguments: str
    message: str
    user_message: str
    requested_at: datetime
    expires_at: datetime | None = None
    again: bool = False
    page_link: str = ""
    answer_link: str = ""


@dataclass(frozen=True)
class Given:
    """An answer that a channel found on the other side. ``by`` names the person in the channel's own words."""

    by: str
    approved: bool | None = None
    comment: str = ""
    response: str = ""


class Channel(Protocol):
    """One ContactChannel, with its secrets resolved."""

    sent_reason: str
    """Reason of the call's event once the request is on its way."""
    failed_reason: str

    async def validate(self) -> str:
        """Check the configuration without a person noticing; a sentence that says what is fine. Raises ChannelError."""
        ...

    async def send(self, ask: Ask) -> str:
        """Ask the person; the sentence of the call's event. Raises ChannelError.

        Sent twice, it is recognised as the same request wherever the other side can.
        """
        ...

    async def aclose(self) -> None: ...


@runtime_checkable
class PolledChannel(Channel, Protocol):
    """A channel that has to be asked for its answers."""

    async def find_answer(self, external_call_id: str, kind: Kind) -> Given | None:
        """The answer, once there is one. Raises ChannelError."""
        ...


class OwnChannel:
    """Base of the channels that need no third party; their events carry reasons of ours."""

    sent_reason = REASON_REQUEST_SENT
    failed_reason = REASON_REQUEST_FAILED
