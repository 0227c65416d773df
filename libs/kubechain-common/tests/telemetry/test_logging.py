"""Logs: their shape, and that secrets do not get into them."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from kubechain_common.telemetry.logging import REDACTED, bound, configure_logging, get_logger, redact
from kubechain_common.telemetry.tracing import span


class Stderr:
    """What was logged since the last look."""

    def __init__(self, capture: pytest.CaptureFixture[str]) -> None:
        self._capture = capture

    def text(self) -> str:
        return self._capture.readouterr().err

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text().splitlines()]


@pytest.fixture
def stderr(capsys: pytest.CaptureFixture[str]) -> Iterator[Stderr]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield Stderr(capsys)
    structlog.reset_defaults()
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)


def test_a_line_is_json_with_its_fixed_fields_first(stderr: Stderr) -> None:
    configure_logging("task-controller", "INFO", "json")
    get_logger("kubechain_task_controller.shell").info("reconciled", task="default/hello", turn=2)
    [line] = stderr.lines()
    assert list(line)[:4] == ["ts", "level", "logger", "event"]
    assert line["level"] == "info"
    assert line["logger"] == "kubechain_task_controller.shell"
    assert line["event"] == "reconciled"
    assert (line["task"], line["turn"], line["service"]) == ("default/hello", 2, "task-controller")
    assert line["ts"].endswith("Z")


def test_a_logger_made_before_the_configuration_follows_it(stderr: Stderr) -> None:
    logger = get_logger("early")
    configure_logging("x", "WARNING", "json")
    logger.info("not shown")
    logger.warning("shown")
    assert [line["event"] for line in stderr.lines()] == ["shown"]


def test_bound_fields_are_on_every_line_within(stderr: Stderr) -> None:
    configure_logging("x", "INFO", "json")
    logger = get_logger("x")
    with bound(task="default/hello", turn=1):
        logger.info("inside")
    logger.info("outside")
    inside, outside = stderr.lines()
    assert (inside["task"], inside["turn"]) == ("default/hello", 1)
    assert "task" not in outside


def test_a_line_within_a_span_carries_its_ids(stderr: Stderr) -> None:
    configure_logging("x", "INFO", "json")
    with span("reconcile") as current:
        get_logger("x").info("inside")
    [line] = stderr.lines()
    assert (line["trace_id"], line["span_id"]) == (current.context.trace_id, current.context.span_id)


def test_an_exception_is_part_of_its_line(stderr: Stderr) -> None:
    configure_logging("x", "INFO", "json")
    try:
        raise ValueError("boom")
    except ValueError:
        get_logger("x").exception("failed")
    [line] = stderr.lines()
    assert "ValueError: boom" in line["exception"]


def test_third_parties_arrive_from_warning_up(stderr: Stderr) -> None:
    configure_logging("x", "DEBUG", "json")
    logging.getLogger("aiohttp.access").info("GET / 200")
    logging.getLogger("some.library").error("broken: %s", "pipe")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    lines = stderr.lines()
    assert [(line["logger"], line["level"]) for line in lines] == [
        ("some.library", "error"),
        ("py.warnings", "warning"),
    ]
    assert lines[0]["event"] == "broken: pipe"


def test_the_console_format_is_for_people(stderr: Stderr) -> None:
    configure_logging("x", "INFO", "console")
    get_logger("shell").info("reconciled", task="default/hello", api_key="k-123")
    text = stderr.text()
    assert "reconciled" in text
    assert "task=default/hello" in text
    assert "k-123" not in text


@pytest.mark.parametrize("value", ["half \ud83d of it", 2**64, {"deep": [-(2**70), "\udfff"]}])
def test_what_the_fast_writer_refuses_is_written_all_the_same(stderr: Stderr, value: object) -> None:
    configure_logging("x", "INFO", "json")
    get_logger("l").info("told", value=value)
    [line] = stderr.lines()
    assert list(line)[:4] == ["ts", "level", "logger", "event"]
    assert (line["event"], line["value"]) == ("told", value)


def test_a_key_that_is_no_text_costs_itself_alone(stderr: Stderr) -> None:
    configure_logging("x", "INFO", "json")
    get_logger("l").info("told", value={(1, 2): "lost", "kept": 2**64})
    assert [line["value"] for line in stderr.lines()] == [{"kept": 2**64}]


def test_what_json_does_not_know_is_written_as_text(stderr: Stderr) -> None:
    configure_logging("x", "INFO", "json")
    get_logger("x").info("odd", value={1: object})
    assert "object" in stderr.lines()[0]["value"]["1"]


@pytest.mark.parametrize(("level", "format"), [("LOUD", "json"), ("INFO", "xml")])
def test_an_unknown_setting_is_refused(level: str, format: str) -> None:
    with pytest.raises(ValueError, match="unknown log"):
        configure_logging("x", level, format)


@pytest.mark.parametrize(
    "key",
    [
        "api_key",
        "apikey",
        "OPENAI_API_KEY",
        "Authorization",
        "token",
        "access_token",
        "password",
        "X-Api-Key",
        "secret",
    ],
)
def test_values_of_telling_keys_are_dropped(key: str) -> None:
    assert redact(None, "info", {key: "v", "nested": {"deep": [{key: "v"}]}}) == {
        key: REDACTED,
        "nested": {"deep": [{key: REDACTED}]},
    }


@pytest.mark.parametrize("key", ["token_usage", "max_tokens", "secret_name", "task", "key"])
def test_harmless_keys_are_kept(key: str) -> None:
    assert redact(None, "info", {key: "value"}) == {key: "value"}


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("401: header Authorization: Bearer abc.def-123 refused", "abc.def-123"),
        ("Incorrect API key provided: sk-proj-abcdefghijklmnop", "sk-proj-abcdefghijklmnop"),
        ("proxy wants Basic dXNlcjpodW50ZXIy again", "dXNlcjpodW50ZXIy"),
        ("cannot reach nats://user:hunter2@nats:4222", "hunter2"),
    ],
)
def test_credentials_inside_a_text_are_blanked(text: str, secret: str) -> None:
    result = redact(None, "info", {"error": text})["error"]
    assert secret not in result
    assert REDACTED in result


def test_ordinary_texts_are_left_alone() -> None:
    text = "http://127.0.0.1:8080/readyz answered 503 (basic check), task-1 at 12:30"
    assert redact(None, "info", {"event": text}) == {"event": text}
