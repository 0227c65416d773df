"""Which of our own environment variables a stdio server gets, beside the few that the MCP SDK always passes on.

A server is usually started through a package runner (uvx, npx) that must reach a registry: it needs proxy,
certificate and registry settings. It must never get credentials of ours.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path

DEFAULT_PASSTHROUGH = (
    "*_PROXY",
    "*_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "NODE_EXTRA_CA_CERTS",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "UV_*",
    "PIP_*",
    "NPM_CONFIG_*",
    "npm_config_*",
    "XDG_CACHE_HOME",
    "LANG",
    "LC_*",
)

_NEVER = ("KUBECONFIG", "KUBECHAIN_*", "KUBERNETES_*", "NATS_*", "OTEL_*")


def split_list(text: str) -> tuple[str, ...]:
    """The parts of a comma-separated list."""
    return tuple(p.strip() for p in text.split(",") if p.strip())


def select_passthrough(environ: Mapping[str, str], patterns: Iterable[str]) -> dict[str, str]:
    """The variables whose name fits one of ``patterns``; our own are left out whatever the patterns say."""
    wanted = tuple(patterns)
    return {
        name: value
        for name, value in environ.items()
        if any(fnmatchcase(name, p) for p in wanted) and not any(fnmatchcase(name, p) for p in _NEVER)
    }


def build_path(environ: Mapping[str, str]) -> str:
    """PATH with our interpreter's folder at its end: an ``uvx`` that was installed beside us is found without
    activation.
    """
    own = str(Path(sys.executable).parent)
    parts = [p for p in environ.get("PATH", "/usr/local/bin:/usr/bin:/bin").split(":") if p]
    return ":".join(parts if own in parts else [*parts, own])


def build_base_environment(environ: Mapping[str, str], patterns: Iterable[str]) -> dict[str, str]:
    """What every stdio server gets before its own ``spec.env``."""
    return {**select_passthrough(environ, patterns), "PATH": build_path(environ)}
