"""The rights of a service as manifests: its ServiceAccount, its roles and who has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kubechain_common.policies.rbac.rights import NAMESPACE, RIGHTS, Right

RBAC = "rbac.authorization.k8s.io"

Object = dict[str, Any]


def role_name(service: str) -> str:
    return f"kubechain-{service}"


def secrets_role_name(service: str) -> str:
    """The name of the role that reads Secrets; bind it by RoleBindings instead to choose the namespaces."""
    return f"kubechain-{service}-secrets"


def build_service_roles(service: str, namespace: str = NAMESPACE) -> dict[str, list[Object]]:
    """File name -> objects, for one service in ``namespace``."""
    rights = RIGHTS[service]
    name = role_name(service)
    files = {
        "service-account.yaml": [
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": _metadata(service, service, namespace)}
            | {"automountServiceAccountToken": False}
        ],
        "role.yaml": [
            _build("Role", name, service, namespace, rules=_build_rules(rights.at_home)),
            _build("RoleBinding", name, service, namespace, **_bind("Role", name, service, namespace)),
        ],
    }
    if rights.everywhere:
        files["cluster-role.yaml"] = _build_cluster_role(service, name, rights.everywhere, namespace)
    if rights.secrets:
        files["secrets.yaml"] = _build_cluster_role(service, secrets_role_name(service), rights.secrets, namespace)
    return files


def _build_cluster_role(service: str, name: str, rights: Sequence[Right], namespace: str) -> list[Object]:
    return [
        _build("ClusterRole", name, service, rules=_build_rules(rights)),
        _build("ClusterRoleBinding", name, service, **_bind("ClusterRole", name, service, namespace)),
    ]


def _build_rules(rights: Sequence[Right]) -> list[Object]:
    return [
        {
            "apiGroups": [right.group],
            "resources": [right.resource],
            **({"resourceNames": list(right.names)} if right.names else {}),
            "verbs": list(right.verbs),
        }
        for right in rights
    ]


def _bind(kind: str, role: str, service: str, namespace: str) -> Object:
    return {
        "roleRef": {"apiGroup": RBAC, "kind": kind, "name": role},
        "subjects": [{"kind": "ServiceAccount", "name": service, "namespace": namespace}],
    }


def _build(kind: str, name: str, service: str, namespace: str | None = None, **body: Any) -> Object:
    return {"apiVersion": f"{RBAC}/v1", "kind": kind, "metadata": _metadata(name, service, namespace), **body}


def _metadata(name: str, service: str, namespace: str | None) -> Object:
    labels = {
        "app.kubernetes.io/name": service,
        "app.kubernetes.io/part-of": "kubechain",
        "app.kubernetes.io/component": service,
    }
    return {"name": name, **({"namespace": namespace} if namespace else {}), "labels": labels}
