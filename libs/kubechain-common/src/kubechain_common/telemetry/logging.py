"""Structured logs on stderr: JSON lines for machines, a coloured console for people.

Our own loggers go straight from structlog to the stream, without the standard library's logging in between. What third
parties log through the standard library arrives by a bridge, from WARNING up. Two nets catch secrets that should never
have been passed: values under a telling key are dropped, and credentials inside a text are blanked.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from contextlib import AbstractContextManager
from typing import Any, cast

import orjson
import structlog
from structlog.typing import FilteringBoundLogger, Processor

from kubechain_common.telemetry.tracing import current_context

REDACTED = "[redacted]"

_SECRET_KEY = re.compile(
    r"(^|_)(api_?key|authorization|token|password|passwd|secret|credentials?|cookie|private_key)$", re.IGNORECASE
)
_SECRET_TEXT = re.compile(
    r"(?i:(\bbearer\s+)[\w.~+/=-]{6,}|(\bbasic\s+)[A-Za-z0-9+/=]{12,}|(://[^/\s:@]*:)[^\s/@]+(?=@))|\b(sk-)[\w-]{12,}"
)
_MAX_DEPTH = 4

# What every line begins with, and the keys that structlog has for it.
_HEAD = (("ts", "ts"), ("level", "level"), ("logger", "logger_name"), ("event", "event"))

# Libraries whose INFO is a line per request.
_NOISY = ("aiohttp", "anthropic", "asyncio", "httpcore", "httpx", "httpx2", "kubernetes", "mcp", "nats", "openai")


def get_logger(name: str) -> FilteringBoundLogger:
    """A logger whose lines carry ``logger=name``. Lazy, hence fit for module level before the configuration."""
    return cast("FilteringBoundLogger", structlog.get_logger(logger_name=name))


def bound(**fields: object) -> AbstractContextManager[Any]:
    """Within this context every line of the task carries ``fields`` (task, turn, ...)."""
    return structlog.contextvars.bound_contextvars(**fields)


def configure_logging(service: str, level: str, format: str) -> None:
    """Set the process's logging up. ``level`` is a standard name; ``format`` is ``json`` or ``console``.

    Raises ValueError for an unknown level or format.
    """
    threshold = logging.getLevelNamesMapping().get(level.upper())
    if threshold is None:
        raise ValueError(f"unknown log level {level!r}: use DEBUG, INFO, WARNING, ERROR or CRITICAL")
    if format not in ("json", "console"):
        raise ValueError(f"unknown log format {format!r}: use json or console")
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
        _add_trace_ids,
    ]
    if format == "json":
        _configure_json(service, threshold, shared)
    else:
        _configure_console(threshold, shared)
    _bridge_standard_library(threshold)


def _configure_json(service: str, threshold: int, shared: list[Processor]) -> None:
    def add_service(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event["service"] = service
        return event

    structlog.configure(
        processors=[*shared, add_service, structlog.processors.format_exc_info, redact, _render_json],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.BytesLoggerFactory(file=sys.stderr.buffer),
        cache_logger_on_first_use=False,
    )


def _configure_console(threshold: int, shared: list[Processor]) -> None:
    renderer = structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty(), timestamp_key="ts", exception_formatter=structlog.dev.plain_traceback
    )
    structlog.configure(
        processors=[*shared, structlog.processors.format_exc_info, redact, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )


def _render_json(_: Any, __: str, event: MutableMapping[str, Any]) -> bytes:
    line = {name: event.pop(key, "") for name, key in _HEAD} | dict(event)
    try:
        return orjson.dumps(line, default=str, option=orjson.OPT_NON_STR_KEYS)
    except TypeError:
        # Half characters and integers over 64 bits, which whoever logs has from others and can not be to blame for.
        return json.dumps(line, default=str, skipkeys=True).encode()


def _add_trace_ids(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    context = current_context()
    if context is not None:
        event.setdefault("trace_id", context.trace_id)
        event.setdefault("span_id", context.span_id)
    return event


def redact(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Blank the values of keys that name a secret, and credentials inside texts."""
    for key, value in event.items():
        event[key] = _redact_value(key, value, _MAX_DEPTH)
    return event


def _redact_value(key: object, value: Any, depth: int) -> Any:
    if isinstance(key, str) and value is not None and _SECRET_KEY.search(key.replace("-", "_")):
        return REDACTED
    if isinstance(value, str):
        return _SECRET_TEXT.sub(lambda match: (match[match.lastindex] if match.lastindex else "") + REDACTED, value)
    if depth == 0:
        return value
    if isinstance(value, Mapping):
        return {k: _redact_value(k, v, depth - 1) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_redact_value(None, v, depth - 1) for v in value]
    return value


class _Bridge(logging.Handler):
    """Hands the records of the standard library to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        logger = get_logger(record.name)
        try:
            logger.log(record.levelno, record.getMessage(), exc_info=record.exc_info)
        except Exception:
            self.handleError(record)


def _bridge_standard_library(threshold: int) -> None:
    root = logging.getLogger()
    root.handlers[:] = [_Bridge()]
    root.setLevel(max(threshold, logging.WARNING))
    for name in _NOISY:
        logging.getLogger(name).setLevel(max(threshold, logging.WARNING))
    logging.captureWarnings(True)
