"""The generated part of docs/settings.md: what each service takes from its environment, from its settings class.

``python -m scripts.settings_page docs/settings.md [--check]``
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

from kubechain_common.crdgen.__main__ import run_on_file
from kubechain_common.crdgen.pages import build_table, put_into
from kubechain_common.runtime.settings import ServiceSettings
from kubechain_human_bridge.settings import BridgeSettings
from kubechain_mcp_host.settings import MCPHostSettings

COMMAND = "make crds"
HEAD = ("variable", "meaning", "takes", "default")
SETTINGS: Mapping[str, type[BaseSettings]] = MappingProxyType(
    {"Every service": ServiceSettings, "mcp-host": MCPHostSettings, "human-bridge": BridgeSettings}
)
"""By the heading of their table."""


def render() -> str:
    """Everything between the two marks."""
    tables = ((title, build_table(HEAD, build_rows(settings))) for title, settings in SETTINGS.items())
    return "\n\n".join(f"## {title}\n\n{table}" for title, table in tables)


def build_rows(settings: type[BaseSettings]) -> Iterator[Sequence[str]]:
    meanings, prefix = read_meanings(settings), settings.model_config["env_prefix"]
    for name, field in settings.model_fields.items():
        yield f"`{prefix}{name.upper()}`", meanings[name], describe_type(name, field), describe_default(field)


def read_meanings(settings: type[BaseSettings]) -> dict[str, str]:
    """The docstring of each setting, which stands below it."""
    (found,) = ast.parse(inspect.getsource(settings)).body
    assert isinstance(found, ast.ClassDef)
    return {
        ast.unparse(field.target): " ".join(str(below.value.value).split())
        for field, below in pairwise(found.body)
        if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
    }


def describe_type(name: str, field: FieldInfo) -> str:
    """What may be written, with its unit and bounds."""
    if get_origin(field.annotation) is Literal:
        return ", ".join(f"`{word}`" for word in get_args(field.annotation))
    if Path in (field.annotation, *get_args(field.annotation)):
        return "a path"
    if field.annotation is str:
        return "text"
    unit = "seconds" if name.endswith("_seconds") else "a number"
    return f"{unit}, {describe_bounds(field.metadata)}"


def describe_bounds(bounds: Sequence[object]) -> str:
    match bounds:
        case [Ge(ge=least), Le(le=most)]:
            return f"{least:,} to {most:,}"
        case [Ge(ge=least)]:
            return f"{least:g} or more"
        case [Gt(gt=least)]:
            return f"more than {least:g}"
        case _:
            raise ValueError(f"no words for the bounds {bounds}")


def describe_default(field: FieldInfo) -> str:
    default = f"{field.default:g}" if isinstance(field.default, float) else field.default
    return f"`{default}`" if default not in (None, "") else ""


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the page, or with ``--check`` exits with 1 when it differs."""
    return run_on_file(lambda page: put_into(page, render(), COMMAND), argv)


if __name__ == "__main__":
    sys.exit(main())
