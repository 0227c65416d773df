"""The generated part of docs/observability.md: every metric of our own, from the objects that count it.

``python -m scripts.metrics_page docs/observability.md [--check]``
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path

from prometheus_client.metrics import MetricWrapperBase

from kubechain_common.crdgen.__main__ import run_on_file
from kubechain_common.crdgen.pages import build_table, put_into

ROOT = Path(__file__).resolve().parents[1]
COMMAND = "make crds"
HEAD = ("metric", "kind", "labels", "on", "meaning")
COMMON = "kubechain_common"
DEFINES = re.compile(r"^from prometheus_client import .*\b(?:Counter|Gauge|Histogram)\b", re.MULTILINE)


def render() -> str:
    """Everything between the two marks."""
    return build_table(HEAD, sorted(build_row(package, metric) for package, metric in find_metrics()))


def find_metrics() -> Iterator[tuple[str, MetricWrapperBase]]:
    """(package, metric) of each, once."""
    seen: set[int] = set()
    for module in find_modules():
        for value in vars(import_module(module)).values():
            if isinstance(value, MetricWrapperBase) and id(value) not in seen:
                seen.add(id(value))
                yield module.partition(".")[0], value


def find_modules() -> list[str]:
    """The modules that make metrics; importing all others would import every SDK."""
    sources = [ROOT / "libs" / "kubechain-common" / "src", *sorted((ROOT / "services").glob("*/src"))]
    return [
        ".".join(file.relative_to(source).with_suffix("").parts)
        for source in sources
        for file in sorted(source.rglob("*.py"))
        if DEFINES.search(file.read_text("utf-8"))
    ]


def build_row(package: str, metric: MetricWrapperBase) -> tuple[str, ...]:
    (family,) = metric.describe()
    name = f"{family.name}_total" if family.type == "counter" else family.name
    labels = ", ".join(f"`{label}`" for label in metric._labelnames)
    where = "every service" if package == COMMON else package.removeprefix("kubechain_").replace("_", "-")
    return f"`{name}`", family.type, labels, where, family.documentation.rstrip(".")


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the page, or with ``--check`` exits with 1 when it differs."""
    return run_on_file(lambda page: put_into(page, render(), COMMAND), argv)


if __name__ == "__main__":
    sys.exit(main())
