"""mcp-host -> mcp-host: who lives, and calls that belong to a session of another replica."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from kubechain_common.api.v1alpha1.meta import MicroTime
from kubechain_common.messages.envelope import Envelope

Instance = Annotated[str, Field(pattern=r"^[-_a-zA-Z0-9]+$", max_length=64)]


class Alive(Envelope):
    """A replica lives. ``instance`` names one run of its process, ``pod`` stays over restarts: a new instance replaces
    the last.
    """

    pod: str
    instance: Instance


class SessionOwner(Envelope):
    """The replica that owns a session, as the shared bucket has it; empty once the session was given up."""

    pod: str = ""
    instance: str = ""


class HandOver(Envelope):
    """Asks the replica that owns ``session`` to run the request at this place of the stream in it; with ``cancelled``,
    to look whether the request was taken back, and then to stop.
    """

    session: str
    subject: str
    sequence: int
    attempt: int
    new_since: MicroTime | None = None
    cancelled: bool = False


class HandOverNews(Envelope):
    """What the owner answers. Working: the call runs, or waits for a place. Done: its result is published. Refused: the
    session is not here. Failed: nothing ran, and the request is to come again.
    """

    news: Literal["Working", "Done", "Refused", "Failed"]
