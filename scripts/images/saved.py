"""One archive with several images, written anew only when one of them changed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from scripts.images import engine


def save_images(tags: Sequence[str], archive: Path) -> Path:
    """The archive: layers that images share are in it once. Raises EngineError."""
    lines = "".join(f"{tag} {engine.need_image(tag)['Id']}\n" for tag in tags)
    stamp = archive.with_suffix(".ids")
    if archive.exists() and stamp.exists() and stamp.read_text(encoding="utf-8") == lines:
        return archive
    archive.parent.mkdir(parents=True, exist_ok=True)
    stamp.unlink(missing_ok=True)
    engine.save(tags, archive)
    stamp.write_text(lines, encoding="utf-8")
    return archive
