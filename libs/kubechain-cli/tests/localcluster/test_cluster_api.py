"""A cluster of the user's own, by a kubectl of the test that has more to say than its answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubechain_cli.localcluster.cluster_api import run_kubectl, try_kubectl
from kubechain_cli.localcluster.errors import ClusterApiError
from kubechain_cli.localcluster.policies import install_policies_with_kubectl, load_policies

KUBECTL = """#!/bin/sh
echo "W1123 a plugin gets new credentials" >&2
case "$*" in
*"get --raw"*) echo '{"resources": [{"kind": "ValidatingAdmissionPolicy"}, {"kind": "MutatingAdmissionPolicy"}]}' ;;
*create*)
  if grep -q '"by": ""'; then echo "Error: kubechain-answers denied the request" >&2; exit 1; fi
  echo '{"spec": {"decision": {"approved": true, "by": "me"}}}' ;;
*apply*) cat >/dev/null; echo "serverside-applied" ;;
*) echo "Error: what is this" >&2; exit 1 ;;
esac
"""


@pytest.fixture
def kubectl(tmp_path: Path) -> Path:
    program = tmp_path / "kubectl"
    program.write_text(KUBECTL)
    program.chmod(0o755)
    return program


async def test_warnings_are_no_part_of_an_answer(tmp_path: Path, kubectl: Path) -> None:
    await install_policies_with_kubectl(kubectl, tmp_path / "kubeconfig", load_policies())
    assert await try_kubectl(kubectl, tmp_path / "kubeconfig", ["apply"]) == (True, "serverside-applied")


async def test_a_failure_is_told_in_the_words_of_kubectl(tmp_path: Path, kubectl: Path) -> None:
    with pytest.raises(ClusterApiError, match=r"kubectl wait failed: (?s:.*)Error: what is this"):
        await run_kubectl(kubectl, tmp_path / "kubeconfig", ["wait"])
