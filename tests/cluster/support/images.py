"""The images of this tree, built and saved into one archive; those of the services under an older release's tag too."""

from __future__ import annotations

import os
from pathlib import Path

from scripts.images import engine
from scripts.images.build import NAMES, SERVICES, Plan, build_images, read_version
from scripts.images.engine import EngineError
from scripts.images.saved import save_images

from kubechain_cli.localcluster.layout import cache_root

VERSION = read_version()
OLD_VERSION = "0.0.9"


class NoImagesError(Exception):
    """Why there are none."""


def build_archive() -> Path:
    """Raises NoImagesError where no engine can run; anything else that goes wrong is a failure."""
    reason = os.environ.get("KUBECHAIN_NO_ENGINE")
    if reason:
        raise NoImagesError(reason)
    try:
        engine.run("version", "--format", "{{.Server.Version}}")
    except EngineError as error:
        raise NoImagesError(f"no container engine to build images with: {error}") from error
    plan, older = Plan(VERSION), Plan(OLD_VERSION)
    tags = list(build_images(plan, NAMES).values())
    aliases = {older.tag(service): plan.tag(service) for service in SERVICES}
    for alias, tag in aliases.items():
        engine.run("tag", tag, alias)
    return save_images([*tags, *aliases], cache_root() / "images" / "cluster.tar")
