"""URL paths of the API server.

Names come from users (a Secret named in a spec), so each segment is checked: an empty one would turn a get into a
list, and ``..`` into something else altogether.
"""

from __future__ import annotations

from urllib.parse import quote

from kubechain_common.api.v1alpha1.meta import API_VERSION, Resource
from kubechain_common.kube.errors import InvalidError


def is_path_segment(name: str) -> bool:
    """Whether an object can have this name at all."""
    return name not in ("", ".", "..") and not any(c in name for c in "/%,=!\\")


def resource_path(kind: type[Resource], namespace: str = "", name: str = "", subresource: str = "") -> str:
    """Path of one of our six kinds: all of them (no namespace), those of a namespace, or one object.

    Raises InvalidError for a name that no object can have.
    """
    return _build(f"/apis/{API_VERSION}", kind.crd.plural, namespace, name, subresource)


def core_path(plural: str, namespace: str, name: str = "") -> str:
    """Path of a core/v1 kind such as ``secrets``, ``configmaps`` or ``events``."""
    return _build("/api/v1", plural, namespace, name)


def lease_path(namespace: str, name: str = "") -> str:
    return _build("/apis/coordination.k8s.io/v1", "leases", namespace, name)


def _build(root: str, plural: str, namespace: str, name: str, subresource: str = "") -> str:
    path = root
    if namespace:
        path += f"/namespaces/{_segment(namespace)}"
    path += f"/{plural}"
    if name:
        path += f"/{_segment(name)}"
    return f"{path}/{subresource}" if subresource else path


def _segment(name: str) -> str:
    if not is_path_segment(name):
        raise InvalidError(f"{name!r} is not a valid Kubernetes name")
    return quote(name, safe="")
