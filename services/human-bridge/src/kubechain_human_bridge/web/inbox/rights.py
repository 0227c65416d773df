"""What a user may do: the API server's SubjectAccessReview, asked for that user.

https://kubernetes.io/docs/reference/kubernetes-api/authorization-resources/subject-access-review-v1/
Seeing takes the verbs ``list`` and ``get`` that kubectl needs, answering the verb ``decide`` of our own. What is only
shown may rest on a review of the last few seconds; an answer never does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from kubechain_common.api.v1alpha1.meta import GROUP
from kubechain_human_bridge.web.inbox.fresh_cache import FreshCache
from kubechain_human_bridge.web.inbox.users import Requests, User

_PATH = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
_FRESH_SECONDS = 5.0
_MAX_KNOWN = 4096
_REVIEWS_AT_ONCE = 16

Verb = Literal["list", "get", "decide"]
ResourceName = Literal["taskruntoolcalls", "tasks"]


@dataclass(frozen=True, slots=True)
class Access:
    """One thing that somebody wants to do: without a name to all objects of a namespace, without a namespace to those
    of all.
    """

    verb: Verb
    namespace: str = ""
    name: str = ""
    resource: ResourceName = "taskruntoolcalls"


class Rights:
    """Asks the API server what a user may do. Everything raises KubeError."""

    def __init__(self, kube: Requests) -> None:
        self._kube = kube
        self._at_once = asyncio.Semaphore(_REVIEWS_AT_ONCE)
        self._known: FreshCache[tuple[User, Access], bool] = FreshCache(_FRESH_SECONDS, _MAX_KNOWN)

    async def may(self, user: User, access: Access) -> bool:
        """Whether the user may do it, as of a few seconds ago at most."""
        return await self._known.look_up((user, access), lambda: self.may_now(user, access))

    async def may_now(self, user: User, access: Access) -> bool:
        async with self._at_once:
            review = await self._kube.request("POST", _PATH, body=_build_review(user, access))
        status = review.get("status") or {}
        return status.get("allowed") is True and status.get("denied") is not True

    async def may_see(self, user: User, namespace: str) -> bool:
        """Whether the user may list the calls of the namespace."""
        return await self.may(user, Access("list")) or await self.may(user, Access("list", namespace))

    async def visible(self, user: User, namespaces: Iterable[str]) -> frozenset[str]:
        """Those of the namespaces whose calls the user may list."""
        wanted = sorted(set(namespaces))
        if not wanted or await self.may(user, Access("list")):
            return frozenset(wanted)
        allowed = await asyncio.gather(*(self.may(user, Access("list", namespace)) for namespace in wanted))
        return frozenset(namespace for namespace, may in zip(wanted, allowed, strict=True) if may)


def _build_review(user: User, access: Access) -> dict[str, object]:
    attributes = {
        "group": GROUP,
        "resource": access.resource,
        "verb": access.verb,
        "namespace": access.namespace,
        "name": access.name,
    }
    spec = {
        "user": user.name,
        "uid": user.uid,
        "groups": list(user.groups),
        "extra": {key: list(values) for key, values in user.extra},
        "resourceAttributes": {key: value for key, value in attributes.items() if value},
    }
    return {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
