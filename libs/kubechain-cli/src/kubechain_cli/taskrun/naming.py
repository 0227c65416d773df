"""The Task of a run: its name, and the object to create."""

from __future__ import annotations

import secrets

from kubechain_common.api.v1alpha1 import Task
from kubechain_common.api.v1alpha1.meta import ObjectMeta, Ref
from kubechain_common.api.v1alpha1.task import TaskSpec

# No vowels and no digits that look like letters, as in names that Kubernetes makes: nothing rude, nothing misread.
_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
_SUFFIX = 6
_MAX_NAME = 253


def new_suffix() -> str:
    """Six random characters that are valid at the end of a name."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(_SUFFIX))


def build_task_name(agent: str, suffix: str) -> str:
    """``<agent>-<suffix>``; a long agent name is cut so that the whole is valid."""
    return f"{agent[: _MAX_NAME - len(suffix) - 1].rstrip('-.')}-{suffix}"


def build_task(namespace: str, name: str, agent: str, message: str, ttl_seconds: int | None) -> Task:
    """The Task to create."""
    spec = TaskSpec(agent_ref=Ref(name=agent), user_message=message, ttl_seconds_after_finished=ttl_seconds)
    return Task(metadata=ObjectMeta(namespace=namespace, name=name), spec=spec)
