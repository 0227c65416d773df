"""The earlier Task whose conversation a new one goes on with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from kubechain_common.api.v1alpha1.conversation import Message
from kubechain_common.api.v1alpha1.task import Task


@dataclass(frozen=True)
class Source:
    """The Task, and its window with every text in full; ``lost`` says which part of it is gone for good."""

    task: Task
    window: Sequence[Message] = field(default_factory=tuple)
    lost: str = ""
