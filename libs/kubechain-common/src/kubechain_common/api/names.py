"""Deterministic names and labels: the reason why a crash between two creates is harmless.

Every name is a function of the owner's uid and the turn, so creating a child again finds it there.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

from kubechain_common.api.v1alpha1.meta import GROUP

LABEL_TASK = f"{GROUP}/taskruntoolcall"
"""Label of a tool call that names its Task, spelled as in the original KubeChain."""

LABEL_TASK_UID = f"{GROUP}/task-uid"

LABEL_PARENT_CALL = f"{GROUP}/parent-toolcall"
"""Label of a sub-agent's Task that names the call that it answers, spelled as in the original KubeChain."""

LABEL_PARENT_CALL_UID = f"{GROUP}/parent-toolcall-uid"
"""Label of a sub-agent's Task: the uid of the call that it answers."""

_MAX_LABEL = 63
_MAX_NAME = 253


def _digest(*parts: object, length: int = 7) -> str:
    return hashlib.sha256("\x00".join(map(str, parts)).encode()).hexdigest()[:length]


def turn_key(task_uid: str, turn: int) -> str:
    """``<task-uid>.<turn>``: what a turn's messages are deduplicated by."""
    return f"{task_uid}.{turn}"


def tool_call_name(task_name: str, task_uid: str, turn: int, index: int) -> str:
    """``<task>-<7 hex>-tc-<NN>`` for call ``index`` (from 1) of a turn.

    A long Task name is cut; the hash keeps it unique.
    """
    suffix = f"-{_turn_digest(task_uid, turn)}-tc-{index:02d}"
    stem = task_name[: _MAX_NAME - len(suffix)].rstrip("-.")
    return stem + suffix


@lru_cache(maxsize=8192)
def _turn_digest(task_uid: str, turn: int) -> str:
    """Seven hex digits that no earlier turn of the Task has: else its finished call would be taken for the new one.

    It is the turn's own digest, or, where that is taken, the first one with a salt that is not. The earlier turns are
    counted anew for each one, which takes some 25 ms in the last that maxTurns allows; to remember them for all Tasks
    would take far more memory than that is worth.
    """
    taken: set[str] = set()
    digest = ""
    for number in range(turn + 1):
        digest, salt = _digest(task_uid, number), 0
        while digest in taken:
            salt += 1
            digest = _digest(task_uid, number, salt)
        taken.add(digest)
    return digest


def execution_key(namespace: str, call_name: str) -> str:
    """``<namespace>/<call>``: this execution of a tool, for ever, also when the call is deleted and made again."""
    return f"{namespace}/{call_name}"


def external_run_id(task_uid: str) -> str:
    """``kc-<16 hex>``: how a Task is known to those who ask people for us."""
    return f"kc-{_digest(task_uid, length=16)}"


def external_call_id(namespace: str, call_name: str, call_uid: str) -> str:
    """``ec-<16 hex>``: how a request to a person is known outside, for ever.

    A call that was deleted and made again under its name may want something else, so it does not inherit what a person
    said of the first one. Together with the run id it takes 38 of the 64 bytes that the HumanLayer API allows.
    """
    return f"ec-{_digest(namespace, call_name, call_uid, length=16)}"


def sub_task_name(call_name: str, agent: str) -> str:
    """``<call>-<agent>``: the Task that answers a delegation; a long name is cut, and a hash keeps it unique."""
    name = f"{call_name}-{agent}"
    if len(name) <= _MAX_NAME:
        return name
    suffix = "-" + _digest(name, length=16)
    return name[: _MAX_NAME - len(suffix)].rstrip("-.") + suffix


def text_name(task_name: str, task_uid: str, text: str) -> str:
    """``<task>-text-<16 hex>``: the ConfigMap in which a Task keeps this text; another text has another name."""
    suffix = f"-text-{_digest(task_uid, text, length=16)}"
    return task_name[: _MAX_NAME - len(suffix)].rstrip("-.") + suffix


def label_value(name: str) -> str:
    """The name itself, or a shortened form with a hash when it is over the 63 characters of a label value."""
    if len(name) <= _MAX_LABEL:
        return name
    suffix = "-" + _digest(name)
    return name[: _MAX_LABEL - len(suffix)].rstrip("-._") + suffix


def tool_call_labels(task_name: str, task_uid: str) -> dict[str, str]:
    return {LABEL_TASK: label_value(task_name), LABEL_TASK_UID: task_uid}


def sub_task_labels(call_name: str, call_uid: str) -> dict[str, str]:
    return {LABEL_PARENT_CALL: label_value(call_name), LABEL_PARENT_CALL_UID: call_uid}
