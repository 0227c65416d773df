"""docs/providers.md tells what the code does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from kubechain_common.api.v1alpha1.llm import LLMSpec, Provider
from kubechain_common.api.v1alpha1.meta import KubeModel
from kubechain_llm_gateway.llms.parameter_support import PARAMETERS, SETTINGS
from kubechain_llm_gateway.llms.provider_docs import main

PAGE = Path(__file__).resolve().parents[3] / "docs" / "providers.md"


def test_the_page_is_up_to_date() -> None:
    assert main([str(PAGE), "--check"]) == 0


def test_every_field_of_a_provider_is_told_of() -> None:
    """A new field has to say what becomes of it."""
    told = {*SETTINGS, *(f"parameters.{name}" for name in PARAMETERS)} - {"requestTimeoutSeconds"}
    assert told == set(_fields_of_blocks("parameters", *get_args(Provider)))


def _fields_of_blocks(*blocks: str) -> Iterator[str]:
    for block in blocks:
        (model,) = (t for t in get_args(LLMSpec.model_fields[block].annotation) if issubclass(t, KubeModel))
        yield from (f"{block}.{info.alias or name}" for name, info in model.model_fields.items())


def test_writing_puts_it_right(tmp_path: Path) -> None:
    page = PAGE.read_text(encoding="utf-8")
    stale = tmp_path / "providers.md"
    stale.write_text(page.replace("`random_seed`", "`seed`"), encoding="utf-8")
    assert main([str(stale), "--check"]) == 1
    assert main([str(stale)]) == 0
    assert stale.read_text(encoding="utf-8") == page


def test_a_page_without_marks_is_not_written(tmp_path: Path) -> None:
    bare = tmp_path / "providers.md"
    bare.write_text("# Providers\n", encoding="utf-8")
    with pytest.raises(ValueError, match="the page has no"):
        main([str(bare)])
    assert bare.read_text(encoding="utf-8") == "# Providers\n"
