"""Reading the conditions of a CRD."""

from __future__ import annotations

from typing import Any

import pytest

from kubechain_cli.localcluster.crds import is_established, is_stuck, load_crds


def crd(**conditions: str) -> dict[str, Any]:
    return {"status": {"conditions": [{"type": kind, "status": status} for kind, status in conditions.items()]}}


@pytest.mark.parametrize(
    ("manifest", "established", "stuck"),
    [
        ({}, False, False),
        ({"status": {"conditions": None}}, False, False),
        (crd(NamesAccepted="True"), False, True),
        (crd(NamesAccepted="True", Established="False"), False, True),
        (crd(NamesAccepted="False", Established="False"), False, False),
        (crd(NamesAccepted="True", Established="True"), True, False),
    ],
)
def test_conditions(manifest: dict[str, Any], established: bool, stuck: bool) -> None:
    assert (is_established(manifest), is_stuck(manifest)) == (established, stuck)


def test_the_crds_come_from_the_models() -> None:
    names = {manifest["metadata"]["name"] for manifest in load_crds()}
    assert "tasks.kubechain.humanlayer.dev" in names
