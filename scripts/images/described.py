"""Holds a new image to what images of ours must be, and says in a document what it is made of."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from scripts.images import engine
from scripts.images.build import ROOT, SERVICES
from scripts.images.contents import find_faults, read_contents

FOLDER = ROOT / "dist" / "images"


def describe_image(name: str, tag: str, version: str, folder: Path = FOLDER) -> str:
    """The path of the image's SBOM, at once when the one there tells of this very image.

    Raises EngineError when the image is not what it must be.
    """
    from scripts.images import sbom  # half a second, and seldom needed

    path = folder / f"{name}.cdx.json"
    content_id = read_content_id(tag)
    if sbom.read_content_id(path) != content_id:
        contents = read_contents(tag)
        own = ["kubechain-common", f"kubechain-{name}"] if name in SERVICES else []
        if faults := find_faults(contents, own):
            raise engine.EngineError(f"{tag} must not be used: {'; '.join(faults)}")
        sbom.write_bom(sbom.build_bom(f"kubechain-{name}", version, content_id, contents), path)
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def read_content_id(tag: str) -> str:
    """A digest of the image's files and user: the same for another version or revision with the same files."""
    image = engine.need_image(tag)
    return hashlib.sha256(json.dumps([image["RootFS"]["Layers"], image["Config"].get("User")]).encode()).hexdigest()
