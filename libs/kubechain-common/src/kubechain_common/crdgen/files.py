"""The text of generated manifests: the same models always give the same bytes, so drift shows as a difference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

KUSTOMIZATION = "kustomization.yaml"

MODELS = "the models in kubechain_common.api"
_HEADER = "# GENERATED from {} by `make crds`. Do not edit.\n"


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True  # anchors are legal YAML, but no reader of a manifest expects them


def _represent_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _represent_text)


def build_files(manifests: Mapping[str, Sequence[Mapping[str, Any]]], source: str = MODELS) -> dict[str, str]:
    """File name -> text, the kustomization included."""
    kustomization = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization"}
    texts = {**manifests, KUSTOMIZATION: [{**kustomization, "resources": sorted(manifests)}]}
    return {name: _HEADER.format(source) + _to_text(objects) for name, objects in texts.items()}


def write_files(directory: Path, files: Mapping[str, str]) -> None:
    """Makes ``directory`` hold exactly ``files``: other YAML files in it are of kinds that are gone."""
    directory.mkdir(parents=True, exist_ok=True)
    for stale in set(_read_names(directory)) - set(files):
        (directory / stale).unlink()
    for name, text in files.items():
        (directory / name).write_text(text, encoding="utf-8")


def find_drift(directory: Path, files: Mapping[str, str]) -> list[str]:
    """Names of the files that are missing, stale or different, sorted."""
    present = _read_names(directory)
    stale = set(present) - set(files)
    changed = {n for n, text in files.items() if n not in present or (directory / n).read_text("utf-8") != text}
    return sorted(changed | stale)


def _read_names(directory: Path) -> list[str]:
    return [path.name for path in directory.glob("*.yaml")]


def _to_text(documents: Sequence[Mapping[str, Any]]) -> str:
    return yaml.dump_all(map(dict, documents), Dumper=_Dumper, sort_keys=False, width=1000, allow_unicode=True)
