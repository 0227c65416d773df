"""toolcall-controller -> mcp-host: run this tool; mcp-host -> toolcall-controller: what came of it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from kubechain_common.api.v1alpha1.conversation import ImageType
from kubechain_common.api.v1alpha1.meta import KubeModel, MicroTime
from kubechain_common.messages.envelope import Envelope, ObjectRef


class ToolRequest(Envelope):
    """Run ``tool`` of ``server`` for ``call``.

    ``execution_key`` names this execution for ever: it is made of the call's namespace and name, which depend only on
    the Task's uid, the turn and the index. A call that was deleted and made again has another uid but the same key.

    ``requested_at`` is when the call became free to run (created, or approved). A host that has lost its record of
    started calls treats a call older than the new record as started: its outcome is unknown.

    ``task`` is whose call it is; absent for one that was made by hand.
    """

    call: ObjectRef
    task: ObjectRef | None = None
    execution_key: str
    server: ObjectRef
    tool: str
    arguments: str
    requested_at: MicroTime


class ToolImage(KubeModel):
    """An image that a tool returned; ``data`` is base64."""

    mime_type: ImageType
    data: str


class ToolResult(Envelope):
    """What came of a call; ``content`` is what the model reads when it succeeded, ``error`` when it did not.

    ``content`` names the ``images`` too, for a model that takes none.
    """

    call: ObjectRef
    outcome: Literal["Succeeded", "Failed"]
    content: str = ""
    images: list[ToolImage] = Field(default_factory=list)
    error: str = ""
    reason: str = ""
    started_at: MicroTime | None = None
    completed_at: MicroTime | None = None


REASON_OUTCOME_UNKNOWN = "OutcomeUnknown"
REASON_TOOL_ERROR = "ToolError"
REASON_TIMEOUT = "Timeout"
REASON_INVALID_ARGUMENTS = "InvalidArguments"
REASON_SERVER_UNAVAILABLE = "ServerUnavailable"
REASON_TOOL_NOT_FOUND = "ToolNotFound"
REASON_BAD_REQUEST = "BadRequest"
REASON_CANCELLED = "Cancelled"
