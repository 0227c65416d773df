"""How this machine reaches the package index, handed to a build so that none of it stays in the image."""

from __future__ import annotations

import os
import re
import shlex
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

_SETTINGS = re.compile(r"(https?|all|no)_proxy|(UV|PIP)_\w*(INDEX|HOST|TIMEOUT)\w*", re.IGNORECASE)
_CERTIFICATES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT", "CURL_CA_BUNDLE")
MOST_BYTES = 500_000
"""What BuildKit takes as a secret."""


def build_settings(environment: Mapping[str, str]) -> str:
    """Assignments for a shell: proxies, mirrors, time limits."""
    chosen = {name: value for name, value in environment.items() if value and _SETTINGS.fullmatch(name)}
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in sorted(chosen.items()))


def find_certificates(environment: Mapping[str, str]) -> Path | None:
    """The file with the authorities that this machine trusts, if it has one."""
    paths = ssl.get_default_verify_paths()
    named = [environment.get(name) for name in _CERTIFICATES] + [paths.cafile, "/etc/ssl/certs/ca-certificates.crt"]
    found = (Path(path) for path in named if path)
    return next((path for path in found if path.is_file() and path.stat().st_size <= MOST_BYTES), None)


@contextmanager
def build_secrets(environment: Mapping[str, str] = os.environ) -> Iterator[list[str]]:
    """The arguments that give both to ``docker build``."""
    certificates = find_certificates(environment)
    with TemporaryDirectory() as folder:  # only its owner may look into it
        settings = Path(folder) / "network"
        settings.write_text(build_settings(environment), encoding="utf-8")
        arguments = ["--secret", f"id=network,src={settings}"]
        if certificates:
            arguments += ["--secret", f"id=certificates,src={certificates}"]
        yield arguments
