"""Manifests that the API server refuses (tests/corpus/refused), each with a sentence that names the field.

One file per mistake. Its ``# refused:`` lines say what the person at kubectl has to be told.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.integration

CORPUS = Path(__file__).resolve().parents[1] / "corpus" / "refused"
MANIFESTS = sorted(path.name for path in CORPUS.glob("*.yaml"))

Kubectl = Callable[..., Any]

_REFUSAL = re.compile(
    r'(?:error when creating|from) "[^"]*/(?P<file>[^/"]+\.yaml)": (?P<words>.*?)'
    r"(?=\nError from server|\n?\[?resource mapping not found|\nensure CRDs|\Z)",
    re.DOTALL,
)


@pytest.fixture(scope="module")
def refusals(kubectl: Kubectl) -> Mapping[str, str]:
    """What kubectl says of each file, when it is told to create them all."""
    done = kubectl("create", "--dry-run=server", "--validate=strict", "-f", str(CORPUS))
    assert done.stdout == "", "accepted"
    return {match["file"]: match["words"] for match in _REFUSAL.finditer(done.stderr)}


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_bad_manifest_is_refused_in_words(refusals: Mapping[str, str], name: str) -> None:
    lines = (CORPUS / name).read_text().splitlines()
    wanted = [line.removeprefix("# refused: ") for line in lines if line.startswith("# refused: ")]
    assert wanted, "the file does not say what is expected"
    said = refusals[name]
    assert [words for words in wanted if words not in said] == [], said
    assert "should match" not in said, "a regular expression is no sentence"


def test_the_corpus_covers_every_kind() -> None:
    kinds = {name.partition("-")[0] for name in MANIFESTS}
    assert kinds >= {"llm", "agent", "task", "mcpserver", "contactchannel", "taskruntoolcall"}
    assert len(MANIFESTS) >= 165


@pytest.mark.parametrize(
    ("size", "sentence"),
    [
        (1_048_577, "spec.userMessage: Too long: may not be more than 1048576"),
        (10_000_000, "Request entity too large: limit is 3145728"),
    ],
)
def test_a_message_that_is_too_long_is_refused_with_the_limit(kubectl: Kubectl, size: int, sentence: str) -> None:
    task = {
        "apiVersion": "kubechain.humanlayer.dev/v1alpha1",
        "kind": "Task",
        "metadata": {"name": "long"},
        "spec": {"agentRef": {"name": "a"}, "userMessage": "x" * size},
    }
    refused = kubectl("create", "--dry-run=server", "-f", "-", manifest=task)
    assert refused.returncode != 0
    assert sentence in refused.stderr


def test_half_a_surrogate_pair_never_reaches_an_object(kubectl: Kubectl, tmp_path: Path) -> None:
    """JSON can say it, UTF-8 can not: kubectl or the API server puts U+FFFD in its place."""
    file = tmp_path / "task.json"
    message = json.dumps("half \ud83d a pair")
    file.write_text(
        '{"apiVersion": "kubechain.humanlayer.dev/v1alpha1", "kind": "Task", "metadata": {"name": "half"},'
        f' "spec": {{"agentRef": {{"name": "a"}}, "userMessage": {message}}}}}'
    )
    taken = kubectl("create", "--dry-run=server", "-o", "jsonpath={.spec.userMessage}", "-f", str(file))
    assert (taken.returncode, taken.stdout) == (0, "half \ufffd a pair"), taken.stderr
