"""Every LLM in docs/providers.md is taken by the API server, strictly, and is one that llm-gateway can use."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from kubechain_common.api.v1alpha1 import LLM
from kubechain_llm_gateway.llm_decision import check_configuration
from kubechain_llm_gateway.wire_target import Target, target_of

pytestmark = pytest.mark.integration

PAGE = Path(__file__).resolve().parents[2] / "docs" / "providers.md"
MANIFESTS = [
    yaml.safe_load(text)
    for text in re.findall(r"^```yaml\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
]

Kubectl = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda manifest: manifest["metadata"]["name"])
def test_a_manifest_of_the_page_is_good(kubectl: Kubectl, manifest: dict[str, object]) -> None:
    done = kubectl("apply", "--dry-run=server", "--validate=strict", "-o", "json", "-f", "-", manifest=manifest)
    assert done.returncode == 0, done.stderr
    assert check_configuration(LLM.model_validate(json.loads(done.stdout))) is None


def test_the_page_shows_every_target() -> None:
    assert {target_of(LLM.model_validate(manifest).spec) for manifest in MANIFESTS} == set(Target)
