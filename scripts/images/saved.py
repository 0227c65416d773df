"""One archive with several images, written anew only when one of them changed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from scripts.images import engine
from scripts.images.engine import EngineError


def save_images(tags: Sequence[str], archive: Path) -> Path:
    """The archive: layers that images share are in it once. Raises EngineError."""
    lines = "".join(f"{tag} {read_id(tag)}\n" for tag in tags)
    stamp = archive.with_suffix(".ids")
    if archive.exists() and stamp.exists() and stamp.read_text(encoding="utf-8") == lines:
        return archive
    archive.parent.mkdir(parents=True, exist_ok=True)
    stamp.unlink(missing_ok=True)
    engine.save(tags, archive)
    stamp.write_text(lines, encoding="utf-8")
    return archive


def read_id(tag: str) -> str:
    image = engine.inspect_image(tag)
    if image is None:
        raise EngineError(f"there is no image {tag}")
    return str(image["Id"])
