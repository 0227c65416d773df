"""Who may answer: the admission policies and the roles under ``deploy/kustomize/policies``, as Python's own data.

``answers`` holds the rules, ``roles`` the ClusterRoles of people. ``kubechain up`` applies what is built here,
and ``python -m kubechain_common.policies DIR [--check]`` writes the same as files.
"""

from __future__ import annotations

from typing import Any

from kubechain_common.policies.answers import build_answer_signing, build_answer_validation
from kubechain_common.policies.roles import build_user_roles


def build_policies() -> dict[str, list[dict[str, Any]]]:
    """File name -> objects, ready to apply."""
    return {
        "answers-are-signed.yaml": build_answer_signing(),
        "answers-are-allowed.yaml": build_answer_validation(),
        **build_user_roles(),
    }


__all__ = ["build_policies"]
