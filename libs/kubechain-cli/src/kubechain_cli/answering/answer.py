"""Writes one answer as the user whom the API server takes us for; the first answer stays.

The API server also says what time it is: the clock of this machine has no say in it. The uid guards against another
call of the same name, the resourceVersion against whatever happened since we looked.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from kubechain_cli.answering.errors import AnswerError, BadAnswerError, UnknownCallError
from kubechain_cli.answering.finding import Finder
from kubechain_cli.answering.rendering import describe_answer
from kubechain_common.api.tool_arguments import InvalidArgumentsError
from kubechain_common.api.tool_arguments import read_arguments as read_tool_arguments
from kubechain_common.api.v1alpha1 import TaskRunToolCall
from kubechain_common.kube.client import KubeClient
from kubechain_common.kube.errors import ConflictError, ForbiddenError, InvalidError, NotFoundError

_WHO_AM_I = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
_ATTEMPTS = 10


async def give_answer(kube: KubeClient, namespace: str, name: str, field: str, answer: Mapping[str, Any]) -> str:
    """Writes ``spec.decision`` or ``spec.response``; returns who gave the answer. Raises AnswerError, KubeError.

    ``name`` may be what ``kubectl get -o name`` prints.
    """
    name = name.rpartition("/")[2]
    signature: dict[str, Any] = {}
    for _ in range(_ATTEMPTS):
        call = await get_call(kube, namespace, name)
        check(call, field)
        signature = signature or await sign(kube)
        body = {
            "metadata": {"uid": call.uid, "resourceVersion": call.metadata.resource_version},
            "spec": {field: {**answer, **signature, "via": "cli"}},
        }
        try:
            await kube.patch(TaskRunToolCall, namespace, name, body)
        except ConflictError:
            continue
        except NotFoundError:
            raise AnswerError(f"Tool call {name} was deleted meanwhile.") from None
        except ForbiddenError as error:
            raise AnswerError(f"You ({signature['by']}) may not answer {name}: {error}") from None
        except InvalidError as error:
            raise BadAnswerError(f"The API server does not take this answer: {error}") from None
        return str(signature["by"])
    raise AnswerError(f"Tool call {name} changes all the time. Try again.")


async def get_call(kube: KubeClient, namespace: str, name: str) -> TaskRunToolCall:
    """The call. Raises UnknownCallError with a suggestion, KubeError."""
    try:
        return await kube.get(TaskRunToolCall, namespace, name)
    except NotFoundError:
        waiting = [item.call.name for item in await Finder(kube, namespace).find()]
        raise UnknownCallError(describe_unknown(name, namespace, waiting)) from None
    except InvalidError as error:
        raise UnknownCallError(str(error)) from None


def describe_unknown(name: str, namespace: str, waiting: list[str]) -> str:
    """A sentence that says what may have been meant."""
    text = f"Tool call {name!r} not found in namespace {namespace!r}."
    near = difflib.get_close_matches(name, waiting, n=1)
    if near:
        return f"{text} Did you mean {near[0]}?"
    if waiting:
        return f"{text} Waiting there: {', '.join(waiting[:10])}{' and others' if waiting[10:] else ''}."
    return f"{text} Nothing waits there; see all namespaces: kubechain inbox -A"


def check(call: TaskRunToolCall, field: str) -> None:
    """Raise AnswerError, in a sentence, unless the call waits for an answer of this kind."""
    if call.spec.decision or call.spec.response:
        raise AnswerError(f"{describe_answer(call)} already. Your answer was not needed any more.")
    if call.finished:
        raise AnswerError(
            f"Tool call {call.name} has ended ({call.status.status_detail or call.status.phase}): there is nothing to"
            " answer any more."
        )
    if call.spec.cancel:
        raise AnswerError(f"Tool call {call.name} was cancelled: there is nothing to answer any more.")
    wanted = {"AwaitingHumanApproval": "decision", "AwaitingHumanInput": "response"}.get(call.status.status or "")
    if wanted is None:
        raise AnswerError(
            f"Tool call {call.name} waits for nobody now ({call.status.status_detail or call.status.phase})."
        )
    if wanted != field:
        raise BadAnswerError(
            f"Tool call {call.name} asks a question. Answer it with: kubechain respond {call.name} MESSAGE"
            if wanted == "response"
            else f"Tool call {call.name} waits for approval. Use: kubechain approve {call.name}, or: kubechain reject"
            f" {call.name}"
        )


async def sign(kube: KubeClient) -> dict[str, str]:
    """Who we are and when this is, both in the API server's words. Raises KubeError."""
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    answer = await kube.request("POST", _WHO_AM_I, body=review)
    return {"by": answer["status"]["userInfo"]["username"], "at": answer["metadata"]["creationTimestamp"]}


def read_arguments(text: str) -> str:
    """Arguments for the tool as JSON text. Raises BadAnswerError unless they are an object that mcp-host can read.

    What can not be run must not use up the one answer that counts.
    """
    try:
        read_tool_arguments(text)
    except InvalidArgumentsError as error:
        raise BadAnswerError(f"--arguments: {error}") from None
    return text
