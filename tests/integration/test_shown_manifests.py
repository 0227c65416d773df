"""Every manifest that README, docs/ and deploy/samples/ show is taken by the API server, strictly.

A page may show a part of an object: without apiVersion it is one, and what its kind requires beside is put in here.
Whether llm-gateway can use an LLM is looked at, too.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from kubechain_common.api.v1alpha1 import ALL_KINDS, LLM, TaskRunToolCall
from kubechain_common.api.v1alpha1.meta import API_VERSION
from kubechain_llm_gateway.llms.decision import check_configuration
from kubechain_llm_gateway.providers.wire_target import Target, target_of

pytestmark = pytest.mark.integration

Manifest = dict[str, Any]
Kubectl = Callable[..., "subprocess.CompletedProcess[str]"]

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```yaml\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES = ("README.md", *sorted(str(page.relative_to(ROOT)) for page in (ROOT / "docs").rglob("*.md")))
KINDS = {kind.crd.kind for kind in ALL_KINDS}
REQUIRED: dict[str, Manifest] = {
    "Agent": {"llmRef": {"name": "gpt-4o"}, "system": "You are a helpful assistant."},
    "LLM": {"provider": "openai", "apiKeyFrom": {"secretKeyRef": {"name": "openai", "key": "OPENAI_API_KEY"}}},
}
"""Of a part that is shown without; other parts have what their kind requires."""
WITH_APPROVAL = "deploy/samples/kubechain_v1alpha_contactchannel_with_approval.yaml"
"""As the seed calls it."""


def read_page(page: str) -> list[Manifest]:
    blocks = BLOCK.findall((ROOT / page).read_text("utf-8"))
    return [manifest for block in blocks for manifest in yaml.safe_load_all(block)]


def read_file(file: str) -> list[Manifest]:
    return list(yaml.safe_load_all((ROOT / file).read_text("utf-8")))


SAMPLES = sorted(str(file.relative_to(ROOT)) for file in (ROOT / "deploy" / "samples").iterdir())
SHOWN = [(where, manifest) for where in PAGES for manifest in read_page(where)]
SHOWN += [(where, manifest) for where in SAMPLES for manifest in read_file(where)]


def name_of(shown: tuple[str, Manifest]) -> str:
    where, manifest = shown
    return f"{where}: {manifest.get('kind')} {manifest.get('metadata', {}).get('name', 'in part')}"


def complete(manifest: Manifest) -> Manifest:
    """The whole object that a page shows a part of."""
    if "apiVersion" in manifest:
        return manifest
    spec = REQUIRED.get(manifest["kind"], {}) | manifest["spec"]
    return {"apiVersion": API_VERSION, "metadata": {"name": "part"}, **manifest, "spec": spec}


@pytest.mark.parametrize("shown", SHOWN, ids=name_of)
def test_a_manifest_that_is_shown_is_good(kubectl: Kubectl, shown: tuple[str, Manifest]) -> None:
    manifest = complete(shown[1])
    done = kubectl("apply", "--dry-run=server", "--validate=strict", "-o", "json", "-f", "-", manifest=manifest)
    assert done.returncode == 0, done.stderr
    if manifest["kind"] == "LLM":
        assert check_configuration(LLM.model_validate(json.loads(done.stdout))) is None


def test_whatever_is_shown_says_its_kind() -> None:
    unknown = [where for where, manifest in SHOWN if manifest.get("kind") not in KINDS]
    assert unknown == []


def test_the_samples_show_what_people_write() -> None:
    """And one file has all that an approval takes: nothing in it refers to what another file has."""
    kinds = {manifest["kind"] for where, manifest in SHOWN if where in SAMPLES}
    assert kinds == KINDS - {TaskRunToolCall.crd.kind}
    by_kind = {manifest["kind"]: manifest for manifest in read_file(WITH_APPROVAL)}
    assert set(by_kind) == kinds
    named = {kind: manifest["metadata"]["name"] for kind, manifest in by_kind.items()}
    agent = by_kind["Agent"]["spec"]
    assert by_kind["Task"]["spec"]["agentRef"]["name"] == named["Agent"]
    assert (agent["llmRef"]["name"], agent["mcpServers"]) == (named["LLM"], [{"name": named["MCPServer"]}])
    assert by_kind["MCPServer"]["spec"]["approvalContactChannel"]["name"] == named["ContactChannel"]


def targets_of(page: str) -> set[Target]:
    return {target_of(LLM.model_validate(manifest).spec) for manifest in read_page(page)}


def test_the_pages_show_every_target() -> None:
    assert targets_of("docs/providers.md") == set(Target)
    # OpenAI's and Anthropic's are in the tutorial, which is run as it is written.
    assert targets_of("README.md") == set(Target) - {Target.OPENAI, Target.ANTHROPIC}
