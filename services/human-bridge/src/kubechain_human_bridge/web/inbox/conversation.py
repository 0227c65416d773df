"""The conversation that led to a call, as far as a person reads it before answering.

The end of the window is shown, whole texts included that the Task keeps elsewhere. What was moved out of the window
long ago stays out: reading it back could take megabytes, for somebody who looks at one call.
"""

from __future__ import annotations

from collections.abc import Sequence

from kubechain_common.api.content import split_window
from kubechain_common.api.v1alpha1 import Task
from kubechain_common.api.v1alpha1.conversation import Message
from kubechain_common.kube.client import KubeClient
from kubechain_common.kube.errors import KubeError, NotFoundError
from kubechain_common.kube.text_cache import TextCache
from kubechain_common.kube.window_reader import WindowReader
from kubechain_common.messages import ObjectRef
from kubechain_human_bridge.web.inbox.entries import Json, cut

MAX_MESSAGES = 60
MAX_TEXT = 8_000
"""Characters of one message."""

_CACHE_BYTES = 4 << 20


class Conversations:
    """Reads the conversation of a Task."""

    def __init__(self, kube: KubeClient) -> None:
        self._kube = kube
        self._reader = WindowReader(kube, TextCache(_CACHE_BYTES))

    async def read(self, namespace: str, task_name: str) -> Json:
        """``messages``, and what is missing of them: ``omitted`` earlier ones, or all, which a sentence explains."""
        try:
            task = await self._kube.get(Task, namespace, task_name)
            kept, omitted = choose(task.status.context_window)
            return describe(await self._reader.read_record(ObjectRef.of(task), kept), omitted=omitted)
        except NotFoundError:
            return missing(f'Task "{task_name}" does not exist any more.')
        except KubeError as error:
            if error.retryable:
                return missing("The conversation can not be read right now.")
            return missing(f"The conversation can not be shown: {error}.")


def choose(window: Sequence[Message]) -> tuple[list[Message], bool]:
    """The messages to show, and whether there are others."""
    head, earlier, tail = split_window(window)
    kept = (head + tail)[-MAX_MESSAGES:]
    return kept, earlier is not None or len(kept) < len(head) + len(tail)


def describe(messages: Sequence[Message], *, omitted: bool) -> Json:
    return {"messages": [_describe_message(message) for message in messages], "omitted": omitted, "missing": ""}


def missing(why: str) -> Json:
    return {"messages": [], "omitted": False, "missing": why}


def _describe_message(message: Message) -> Json:
    calls = [
        {"tool": call.function.name, "arguments": cut(call.function.arguments, MAX_TEXT)}
        for call in message.tool_calls or ()
    ]
    return {"role": message.role, "text": cut(message.content, MAX_TEXT), "toolCalls": calls}
