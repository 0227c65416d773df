"""llm-gateway -> whoever watches a Task: what the model writes, while it writes it. Lost words do no harm.

Whoever listens says so again and again, because a gateway tells nothing of a Task that nobody listens to.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from kubechain_common.messages.envelope import Envelope

LISTENING_SECONDS = 15.0
"""How long one LLMListening counts; it is said again in a third of that."""


class LLMListening(Envelope):
    """Somebody listens to this Task. ``fresh`` says that the listener has heard nothing yet, and wants what was written
    so far.
    """

    fresh: bool = False


class LLMDelta(Envelope):
    """A piece of what the model writes as its next message.

    ``offset`` is where the piece stands in the text, in characters: by it a listener sees what it missed and what it
    knows. A text is that of one ``call``: a later one (by turn, then attempt, then call) is a new text, and the older
    one will not be an answer.
    """

    turn: Annotated[int, Field(ge=0)]
    attempt: Annotated[int, Field(ge=1)]
    call: Annotated[int, Field(ge=0)]
    offset: Annotated[int, Field(ge=0)]
    text: str
