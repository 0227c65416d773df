"""The container engine as its ``docker`` command sees it."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

LAST_WITH_ITS_OWN_BUILDER = 22
"""A docker command up to this version speaks BuildKit by itself, a newer one by its plug-in buildx."""


class EngineError(Exception):
    """What the engine refused, or that there is none, as a sentence."""


@cache
def find_client() -> str:
    """The first docker command on PATH that can build with BuildKit; raises EngineError."""
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    candidates = [path for folder in folders if os.access(path := os.path.join(folder, "docker"), os.X_OK)]
    for candidate in candidates:
        if can_build(candidate):
            return candidate
    if candidates:
        raise EngineError(f"{candidates[0]} can not build: install its plug-in buildx, or Debian's docker.io")
    raise EngineError("there is no docker command on PATH")


def can_build(client: str) -> bool:
    words = subprocess.run([client, "--version"], capture_output=True, text=True, check=False).stdout
    version = re.search(r"version (\d+)\.", words)
    if version and int(version[1]) <= LAST_WITH_ITS_OWN_BUILDER:
        return True
    return subprocess.run([client, "buildx", "version"], capture_output=True, check=False).returncode == 0


def run(*arguments: str, environment: Mapping[str, str] | None = None) -> str:
    """What a docker command prints; raises EngineError with the last lines of what it says."""
    done = subprocess.run(
        [find_client(), *arguments],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        env={**os.environ, "DOCKER_BUILDKIT": "1", **(environment or {})},
    )
    if done.returncode != 0:
        said = "\n".join((done.stdout + done.stderr).strip().splitlines()[-30:])
        raise EngineError(f"docker {arguments[0]} failed (exit code {done.returncode}):\n{said}")
    return done.stdout


def inspect_image(name: str) -> dict[str, Any] | None:
    """What the engine knows of an image; None when it does not have it."""
    try:
        found: list[dict[str, Any]] = json.loads(run("image", "inspect", name))
    except EngineError:
        return None
    return found[0]


def need_image(name: str) -> dict[str, Any]:
    """What the engine knows of an image; raises EngineError when it does not have it."""
    found = inspect_image(name)
    if found is None:
        raise EngineError(f"there is no image {name}")
    return found


def save(names: Sequence[str], archive: Path) -> None:
    """Writes the images into one docker archive: what they share is in it once."""
    part = archive.with_suffix(".part")
    run("save", "--output", str(part), *names)
    part.replace(archive)
