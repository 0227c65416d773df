"""The services' rights on the local API server: the very roles that a deployment binds to their ServiceAccounts.

So whatever works here works there, and a right that a service lacks is missed here first.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from kubechain_cli.localcluster.cluster_api import apply, local_api
from kubechain_cli.localcluster.pki import Pki
from kubechain_cli.localcluster.services import NAMESPACE
from kubechain_cli.localcluster.tokens import Identity

if TYPE_CHECKING:
    import aiohttp

_RBAC = "/apis/rbac.authorization.k8s.io/v1"
_PATHS = {
    "ServiceAccount": f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts",
    "ClusterRole": f"{_RBAC}/clusterroles",
    "ClusterRoleBinding": f"{_RBAC}/clusterrolebindings",
    "Role": f"{_RBAC}/namespaces/{NAMESPACE}/roles",
    "RoleBinding": f"{_RBAC}/namespaces/{NAMESPACE}/rolebindings",
}


def load_rights() -> list[dict[str, Any]]:
    """Every service's account and roles. The import takes a while: call it in a thread."""
    from kubechain_common.policies.rbac import SERVICES, build_service_roles

    return [
        obj for service in SERVICES for objects in build_service_roles(service, NAMESPACE).values() for obj in objects
    ]


async def grant_rights(server: str, pki: Pki, identity: Identity, rights: list[dict[str, Any]]) -> None:
    """Hand them to the local API server, with the namespace that they live in. Raises ClusterApiError."""
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    async with local_api(server, pki, identity) as session:
        await apply(session, f"/api/v1/namespaces/{NAMESPACE}", namespace)
        await asyncio.gather(*(_apply(session, obj) for obj in rights))


async def _apply(session: aiohttp.ClientSession, obj: dict[str, Any]) -> None:
    await apply(session, f"{_PATHS[obj['kind']]}/{obj['metadata']['name']}", obj)
