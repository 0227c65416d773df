"""What each service may do: ``rights`` holds the table, ``manifests`` builds the objects.

``kubechain up`` runs the services under the same rights, and ``python -m kubechain_common.policies.rbac
deploy/kustomize/base [--check]`` writes them as files.
"""

from __future__ import annotations

from kubechain_common.policies.rbac.manifests import build_service_roles
from kubechain_common.policies.rbac.rights import NAMESPACE, RIGHTS, SERVICES

__all__ = ["NAMESPACE", "RIGHTS", "SERVICES", "build_service_roles"]
