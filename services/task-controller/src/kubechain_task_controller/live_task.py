"""A Task as the API server has it now, where our copy of it is not enough."""

from __future__ import annotations

from kubechain_common.api.v1alpha1 import Task
from kubechain_common.kube.client import KubeClient
from kubechain_common.kube.errors import NotFoundError


async def find_live(kube: KubeClient, task: Task) -> Task | None:
    """What there is under the Task's name, if anything. Raises KubeError."""
    try:
        return await kube.get(Task, task.namespace, task.name)
    except NotFoundError:
        return None


async def is_there(kube: KubeClient, task: Task) -> bool:
    """Whether the very Task is there, and to stay. Raises KubeError."""
    live = await find_live(kube, task)
    return live is not None and live.uid == task.uid and not live.metadata.deleting
