"""Every LLM of docs/providers.md, in the whole product: it becomes Ready, and a Task of it ends.

Added to the manifests is ``baseUrl`` only, so that the scripted stand-in answers at the provider's own paths.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from tests.e2e.support import manifests
from tests.e2e.support.workspace import Workspace

from kubechain_cli.scripted_llm import SCRIPTS, ScriptedServer

pytestmark = pytest.mark.e2e

PAGE = Path(__file__).resolve().parents[2] / "docs" / "providers.md"
BLOCK = re.compile(r"^```yaml\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LLMS: dict[str, dict[str, Any]] = {
    llm["metadata"]["name"]: llm for llm in map(yaml.safe_load, BLOCK.findall(PAGE.read_text("utf-8")))
}
PATHS = {"azure-gpt-4o": "", "claude": "", "gemini": "/v1beta/openai"}
DETAILS = {
    "gpt-4o": "OpenAI API key validated successfully",
    "llama": "OpenAI-compatible server is reachable; no API key is used",
    "azure-gpt-4o": "Azure OpenAI API key validated successfully",
    "claude": "Anthropic API key validated successfully",
    "mistral": "Mistral API key validated successfully",
    "gemini": "Google API key validated successfully",
    "vertex-gemini": "Vertex AI service account validated successfully",
    "vertex-claude": "Vertex AI service account validated successfully",
}


def build_service_account(workspace: Workspace, llm: ScriptedServer) -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    workspace.cluster.secrets.add(pem.splitlines()[1])
    fields = {"type": "service_account", "client_email": "robot@project.iam.gserviceaccount.com", "private_key": pem}
    return json.dumps({**fields, "token_uri": f"{llm.anthropic_url}/token"})


@pytest.mark.parametrize("name", DETAILS)
def test_a_task_runs_with_it(workspace: Workspace, name: str) -> None:
    llm = workspace.serve_llm(SCRIPTS["echo"])
    manifest = json.loads(json.dumps(LLMS[name]))
    spec = manifest["spec"]
    spec["parameters"]["baseUrl"] = llm.anthropic_url + PATHS.get(name, "/v1")
    objects = [manifest, manifests.agent(name, llmRef={"name": name})]
    source = spec.get("apiKeyFrom", {}).get("secretKeyRef")
    if source is not None:
        account = spec["provider"] == "vertex"
        value = build_service_account(workspace, llm) if account else workspace.new_secret("sk-e2e")
        objects.insert(0, manifests.secret(source["name"], **{source["key"]: value}))
    workspace.kubectl.apply(*objects)
    workspace.kubectl.wait(f"llm/{name}", timeout=60)
    assert workspace.kubectl.get("llm", name)["status"]["statusDetail"] == DETAILS[name]
    workspace.kubectl.apply(manifests.task(f"task-{name}", f"greetings from {name}", agent=name))
    ended = workspace.kubectl.finish(f"task-{name}", timeout=30)
    assert ended["status"]["phase"] == "FinalAnswer"
    assert f"greetings from {name}" in ended["status"]["output"]
    if name != "mistral":  # tells the usage of a stream without being asked, which the stand-in does not
        assert ended["status"]["tokenUsage"]["totalTokens"] > 0


def test_the_page_has_no_other_llm() -> None:
    assert set(LLMS) == set(DETAILS)
