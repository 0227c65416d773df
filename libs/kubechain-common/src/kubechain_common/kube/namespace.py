"""Namespaces, as far as they say something to us: their annotations of our own group."""

from __future__ import annotations

from typing import Any, ClassVar

from kubechain_common.api.v1alpha1.meta import GROUP, CRDInfo, Resource
from kubechain_common.kube.client import KubeClient
from kubechain_common.kube.informer import Informer

_PATH = "/api/v1/namespaces"
_NAME_LABEL = "kubernetes.io/metadata.name"
"""Every namespace has its name as this label: https://kubernetes.io/docs/reference/labels-annotations-taints/"""


class Namespace(Resource):
    """A core/v1 Namespace; its key is ("", name)."""

    crd: ClassVar[CRDInfo] = CRDInfo(
        kind="Namespace", plural="namespaces", singular="namespace", short_names=(), columns=()
    )


def watch_namespaces(kube: KubeClient, namespace: str = "") -> Informer[Namespace]:
    """An informer of all namespaces, or of this one only."""
    return Informer(
        kube,
        Namespace,
        path=_PATH,
        label_selector=f"{_NAME_LABEL}={namespace}" if namespace else "",
        strip=keep_our_annotations,
    )


def keep_our_annotations(raw: dict[str, Any]) -> None:
    """Drops the annotations of others, which may be large and are none of our business."""
    metadata = raw["metadata"]
    annotations = {k: v for k, v in (metadata.get("annotations") or {}).items() if k.startswith(f"{GROUP}/")}
    kept = {k: metadata[k] for k in ("name", "uid", "resourceVersion", "deletionTimestamp") if k in metadata}
    raw["metadata"] = {**kept, "annotations": annotations}
