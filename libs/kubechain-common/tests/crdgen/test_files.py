"""The committed files are those that the models give, and drift is found and named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from kubechain_common.crdgen import build_crds
from kubechain_common.crdgen.__main__ import main
from kubechain_common.crdgen.files import build_files, find_drift, write_files
from kubechain_common.policies import build_policies
from kubechain_common.policies.__main__ import main as write_policies

REPOSITORY = Path(__file__).resolve().parents[4]


CRDS = {name: [crd] for name, crd in build_crds().items()}


def test_the_committed_crds_are_those_of_the_models() -> None:
    assert find_drift(REPOSITORY / "crds", build_files(CRDS)) == []


def test_the_committed_policies_are_those_that_up_applies() -> None:
    assert write_policies([str(REPOSITORY / "deploy" / "kustomize" / "policies"), "--check"]) == 0


@pytest.mark.parametrize("manifests", [CRDS, build_policies()], ids=["crds", "policies"])
def test_the_text_is_a_faithful_print_without_anchors(manifests: dict[str, list[dict[str, Any]]]) -> None:
    for name, text in build_files(manifests).items():
        assert text.startswith("# GENERATED")
        assert "&id" not in text
        if name in manifests:
            assert list(yaml.safe_load_all(text)) == manifests[name]


def test_the_kustomization_lists_every_crd() -> None:
    assert yaml.safe_load(build_files(CRDS)["kustomization.yaml"])["resources"] == sorted(CRDS)


def test_writing_makes_the_directory_hold_exactly_the_files(tmp_path: Path) -> None:
    directory = tmp_path / "crds"
    write_files(directory, {"old.yaml": "a", "same.yaml": "b"})
    write_files(directory, {"same.yaml": "c"})
    assert {path.name: path.read_text() for path in directory.iterdir()} == {"same.yaml": "c"}


def test_drift_names_missing_stale_and_changed_files(tmp_path: Path) -> None:
    write_files(tmp_path, {"stale.yaml": "a", "changed.yaml": "b", "same.yaml": "c"})
    assert find_drift(tmp_path, {"missing.yaml": "a", "changed.yaml": "x", "same.yaml": "c"}) == [
        "changed.yaml",
        "missing.yaml",
        "stale.yaml",
    ]


def test_check_passes_on_fresh_files_and_names_the_edited_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path)]) == 0
    assert main([str(tmp_path), "--check"]) == 0
    edited = tmp_path / "kubechain.humanlayer.dev_llms.yaml"
    edited.write_text("edited")

    assert main([str(tmp_path), "--check"]) == 1

    assert edited.read_text() == "edited"
    assert "kubechain.humanlayer.dev_llms.yaml differs from its source" in capsys.readouterr().err
