"""From a kind to its CustomResourceDefinition: names, columns, the status subresource and the schema."""

from __future__ import annotations

from typing import Any

from kubechain_common.api.v1alpha1.meta import GROUP, VERSION, CRDInfo, PrinterColumn, Resource
from kubechain_common.crdgen.schema import Schema, build_schema

CATEGORY = "kubechain"
"""``kubectl get kubechain`` lists the objects of all kinds."""


def build_crd(kind: type[Resource]) -> dict[str, Any]:
    """The CustomResourceDefinition of ``kind``, ready to apply; raises SchemaError."""
    info = kind.crd
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{info.plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "names": _build_names(info),
            "scope": "Namespaced",
            "conversion": {"strategy": "None"},
            "versions": [_build_version(kind)],
        },
    }


def file_name(kind: type[Resource]) -> str:
    """Name of the kind's file under ``crds/``."""
    return f"{GROUP}_{kind.crd.plural}.yaml"


def _build_names(info: CRDInfo) -> dict[str, Any]:
    names: dict[str, Any] = {
        "kind": info.kind,
        "listKind": f"{info.kind}List",
        "plural": info.plural,
        "singular": info.singular,
        "categories": [CATEGORY],
    }
    if info.short_names:
        names["shortNames"] = list(info.short_names)
    return names


def _build_version(kind: type[Resource]) -> dict[str, Any]:
    selectable = [{"jsonPath": path} for path in kind.crd.selectable]
    return {
        "name": VERSION,
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "additionalPrinterColumns": [_build_column(column) for column in kind.crd.columns],
        **({"selectableFields": selectable} if selectable else {}),
        "schema": {"openAPIV3Schema": _build_root_schema(kind)},
    }


def _build_column(column: PrinterColumn) -> dict[str, Any]:
    built: dict[str, Any] = {"name": column.name, "type": column.type, "jsonPath": column.json_path}
    return built | ({"priority": column.priority} if column.priority else {})


def _build_root_schema(kind: type[Resource]) -> Schema:
    schema = build_schema(kind)
    # The API server owns the schema of these three: a CRD may say nothing about metadata but its type.
    schema["properties"] |= {
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": {"type": "object"},
    }
    schema["required"] = ["spec"]
    return schema
