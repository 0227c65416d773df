"""The text of the files under ``crds/``: the same models always give the same bytes, so drift shows as a difference."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

KUSTOMIZATION = "kustomization.yaml"

_HEADER = "# GENERATED from the models in kubechain_common.api by `make crds`. Do not edit.\n"


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True  # anchors are legal YAML, but no reader of a manifest expects them


def build_files(crds: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """File name -> text, the kustomization included."""
    files = {name: _to_text(crd) for name, crd in crds.items()}
    files[KUSTOMIZATION] = _to_text(
        {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "resources": sorted(crds)}
    )
    return files


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


def _to_text(document: Mapping[str, Any]) -> str:
    return _HEADER + yaml.dump(dict(document), Dumper=_Dumper, sort_keys=False, width=1000, allow_unicode=True)
