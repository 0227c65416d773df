"""The image that all others begin with: pulled where a registry can be reached, else made of Debian's packages."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from scripts.images import engine
from scripts.images.engine import EngineError

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "deploy" / "images" / "base.sh"
DEFAULT = "python:3.11-slim-bookworm"
PULL_SECONDS = 120


def find_base() -> str:
    """The name of an image that the engine has; raises EngineError when there is no way to one."""
    if engine.inspect_image(DEFAULT):
        return DEFAULT
    made = f"kubechain/base:{digest_of_recipe()}"
    if engine.inspect_image(made):
        return made
    archive = cache_folder() / f"base-{digest_of_recipe()}.tar"
    if not archive.exists():
        if pull(DEFAULT):
            return DEFAULT
        print(f"images: {DEFAULT} can not be pulled, making a base of Debian's packages (minutes, once)", flush=True)
        make_archive(archive)
    engine.run("import", str(archive), made)
    return made


def pull(image: str) -> bool:
    command = [engine.find_client(), "pull", "--quiet", image]
    try:
        return subprocess.run(command, capture_output=True, check=False, timeout=PULL_SECONDS).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def digest_of_recipe() -> str:
    return hashlib.sha256(RECIPE.read_bytes()).hexdigest()[:12]


def cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kubechain" / "images"


def make_archive(archive: Path) -> None:
    """Runs the recipe; raises EngineError."""
    if os.geteuid() != 0 or shutil.which("debootstrap") is None:
        raise EngineError(
            f"no base image: {DEFAULT} can not be pulled, and making one needs root and Debian's package debootstrap; "
            "give one that the engine has (make images BASE=...)"
        )
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=archive.parent) as folder:
        root, log, part = Path(folder) / "root", Path(folder) / "log", Path(folder) / "part"
        with log.open("w") as output:
            done = subprocess.run(["sh", str(RECIPE), str(root)], stdout=output, stderr=output, check=False)
        if done.returncode != 0:
            said = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
            raise EngineError(f"{RECIPE.relative_to(ROOT)} failed (exit code {done.returncode}):\n{said}")
        subprocess.run(["tar", "-C", str(root), "--numeric-owner", "-cf", str(part), "."], check=True)
        part.replace(archive)
