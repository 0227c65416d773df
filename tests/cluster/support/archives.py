"""Images made of static binaries, without an engine: an archive as `docker save` writes it.

https://github.com/moby/docker-image-spec/blob/main/spec.md
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

ARCHITECTURES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


def write_image(archive: Path, tag: str, binary: Path, machine: str) -> Path:
    """An archive with the image ``tag``, whose only file is the binary, its entry point."""
    layer = _tar({binary.name: binary.read_bytes()})
    config = {
        "architecture": ARCHITECTURES[machine],
        "os": "linux",
        "config": {"Entrypoint": [f"/{binary.name}"], "User": "65532:65532"},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [tag], "Layers": ["layer.tar"]}]
    files = {
        "config.json": json.dumps(config).encode(),
        "manifest.json": json.dumps(manifest).encode(),
        "layer.tar": layer,
    }
    archive.write_bytes(_tar(files))
    return archive


def _tar(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o755
            tar.addfile(entry, io.BytesIO(content))
    return out.getvalue()
