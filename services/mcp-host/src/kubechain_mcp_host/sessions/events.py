"""What people are told when a session began anew."""

from __future__ import annotations

from kubechain_common.api.v1alpha1 import MCPServer, Task, TaskRunToolCall
from kubechain_common.api.v1alpha1.meta import ObjectMeta, Resource
from kubechain_common.kube.event_recorder import EventRecorder
from kubechain_common.messages import ObjectRef, ToolRequest

REASON = "SessionReestablished"


class SessionEvents:
    """Events about sessions whose server has forgotten what it knew."""

    def __init__(self, recorder: EventRecorder, replica: str) -> None:
        self._recorder = recorder
        self._replica = replica

    def shared_began_anew(self, server: MCPServer) -> None:
        self._recorder.event(
            server,
            "Warning",
            REASON,
            f'The session that all calls share was established anew, on replica "{self._replica}": '
            "what the server remembered is gone.",
        )

    def call_meets_new_session(self, server: MCPServer, request: ToolRequest) -> None:
        """Tells of the first call in a session that began anew: on the call, on its Task and, if the session was the
        Task's own, on the server.
        """
        sentence = (
            f'The session with MCPServer "{server.name}" was established anew, on replica "{self._replica}", before '
            f'call "{request.call.name}": what the server remembered of earlier calls is gone.'
        )
        self._recorder.event(_TheCall(metadata=_metadata_of(request.call)), "Warning", REASON, sentence)
        if request.task is None:
            return
        self._recorder.event(_TheTask(metadata=_metadata_of(request.task)), "Warning", REASON, sentence)
        if server.spec.session == "PerTask":
            self._recorder.event(
                server,
                "Warning",
                REASON,
                f'The session of Task "{request.task.name}" was established anew, on replica "{self._replica}": '
                "what the server remembered of it is gone.",
            )


class _TheTask(Resource):
    """As much of a Task as an event needs."""

    crd = Task.crd


class _TheCall(Resource):
    crd = TaskRunToolCall.crd


def _metadata_of(ref: ObjectRef) -> ObjectMeta:
    return ObjectMeta(namespace=ref.namespace, name=ref.name, uid=ref.uid)
