"""What a user is told when the message bus keeps an object from going on."""

from __future__ import annotations

from dataclasses import dataclass

PREFIX = "Message bus: "
"""What the statusDetail of an object in trouble begins with."""


@dataclass(frozen=True)
class Trouble:
    """``reason`` is that of the event, ``detail`` a sentence."""

    reason: str
    detail: str
