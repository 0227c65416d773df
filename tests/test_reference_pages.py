"""docs/settings.md and docs/observability.md list what the services take and what they count, in words that say it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from prometheus_client.metrics import MetricWrapperBase
from pydantic_settings import BaseSettings

# importlib mode leaves sys.path alone, so the repository's root has to be on it.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts import metrics_page, settings_page

ROOT = Path(__file__).resolve().parents[1]
METRICS = list(metrics_page.find_metrics())


def test_the_pages_are_up_to_date() -> None:
    assert settings_page.main([str(ROOT / "docs" / "settings.md"), "--check"]) == 0
    assert metrics_page.main([str(ROOT / "docs" / "observability.md"), "--check"]) == 0


@pytest.mark.parametrize("settings", settings_page.SETTINGS.values())
def test_every_setting_says_what_it_means(settings: type[BaseSettings]) -> None:
    meanings = settings_page.read_meanings(settings)
    assert set(meanings) == set(settings.model_fields)
    assert [name for name, meaning in meanings.items() if not meaning.endswith(".")] == []


def test_every_settings_class_has_a_table() -> None:
    sources = [*(ROOT / "services").glob("*/src/**/*.py"), *(ROOT / "libs/kubechain-common/src").rglob("*.py")]
    classes = [text for file in sources if "(BaseSettings):" in (text := file.read_text("utf-8"))]
    assert len(classes) == len(settings_page.SETTINGS)


@pytest.mark.parametrize("metric", [metric for _, metric in METRICS], ids=lambda metric: metric._name)
def test_every_metric_says_what_it_counts(metric: MetricWrapperBase) -> None:
    (family,) = metric.describe()
    assert len(family.documentation.split()) > 2


def test_the_metrics_are_found() -> None:
    rows = metrics_page.render()
    assert "| `kubechain_tasks_ended_total` | counter | `namespace`, `agent`, `phase` | task-controller |" in rows
    assert "| `kubechain_leader` | gauge | `lease` | every service |" in rows
