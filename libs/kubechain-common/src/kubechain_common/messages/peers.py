"""mcp-host -> mcp-host: who lives, and calls that belong to a session of another replica."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from kubechain_common.api.v1alpha1.meta import MicroTime
from kubechain_common.messages.envelope import Envelope

Instance = Annotated[str, Field(pattern=r"^[-_a-zA-Z0-9]+$", max_length=64)]


class Alive(Envelope):
    """``instance`` is one run of a process, ``pod`` what it keeps over restarts: a new instance replaces the last."""

    pod: str
    instance: Instance


class SessionOwner(Envelope):
    """Whose a session is, as it stands in the shared bucket; empty: it was given up."""

    pod: str = ""
    instance: str = ""


class HandOver(Envelope):
    """Run the request that has this place in the stream, in the session that you own; or stop, if it was taken back."""

    session: str
    subject: str
    sequence: int
    attempt: int
    new_since: MicroTime | None = None
    cancelled: bool = False


class HandOverNews(Envelope):
    """Working: the call runs, or waits for a place. Done: its result is published. Refused: the session is not here.
    Failed: nothing ran, and the request is to come again.
    """

    news: Literal["Working", "Done", "Refused", "Failed"]
