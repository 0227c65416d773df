"""Writes the CustomResourceDefinitions under ``crds/`` from the models in ``api``: the models are the source.

``schema`` turns a model into a structural schema, ``manifest`` a kind into a CRD, ``files`` the CRDs into stable text.
Run as ``python -m kubechain_common.crdgen crds/`` to write, with ``--check`` to fail on drift.
"""

from __future__ import annotations

from typing import Any

from kubechain_common.api.v1alpha1 import ALL_KINDS
from kubechain_common.crdgen.manifest import build_crd, file_name


def build_crds() -> dict[str, dict[str, Any]]:
    """File name -> CustomResourceDefinition, for all kinds."""
    return {file_name(kind): build_crd(kind) for kind in ALL_KINDS}


__all__ = ["build_crds"]
