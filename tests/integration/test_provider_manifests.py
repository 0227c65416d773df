"""Every LLM in docs/providers.md and in the README is taken by the API server, strictly, and llm-gateway can use it."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from kubechain_common.api.v1alpha1 import LLM
from kubechain_llm_gateway.llm_decision import check_configuration
from kubechain_llm_gateway.wire_target import Target, target_of

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```yaml\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def read_manifests(page: str) -> list[dict[str, Any]]:
    blocks = BLOCK.findall((ROOT / page).read_text("utf-8"))
    return [manifest for block in blocks for manifest in yaml.safe_load_all(block)]


DOCUMENTED = read_manifests("docs/providers.md")
IN_README = read_manifests("README.md")

Kubectl = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.mark.parametrize("manifest", [*DOCUMENTED, *IN_README], ids=lambda manifest: manifest["metadata"]["name"])
def test_a_manifest_of_the_pages_is_good(kubectl: Kubectl, manifest: dict[str, Any]) -> None:
    done = kubectl("apply", "--dry-run=server", "--validate=strict", "-o", "json", "-f", "-", manifest=manifest)
    assert done.returncode == 0, done.stderr
    assert check_configuration(LLM.model_validate(json.loads(done.stdout))) is None


def targets_of(manifests: list[dict[str, Any]]) -> set[Target]:
    return {target_of(LLM.model_validate(manifest).spec) for manifest in manifests}


def test_the_pages_show_every_target() -> None:
    assert targets_of(DOCUMENTED) == set(Target)
    # OpenAI's and Anthropic's are in the tutorial, which is run as it is written.
    assert targets_of(IN_README) == set(Target) - {Target.OPENAI, Target.ANTHROPIC}
