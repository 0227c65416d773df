"""What kustomize makes of deploy/kustomize, for the tests."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
KUSTOMIZE = ROOT / "deploy" / "kustomize"
OVERLAYS = sorted(path.name for path in (KUSTOMIZE / "overlays").iterdir() if path.is_dir())
COMPONENTS = sorted(path.name for path in (KUSTOMIZE / "components").iterdir() if path.is_dir())
KUBECTL = str(Path(sys.executable).parent / "kubectl")

Object = dict[str, Any]


@cache
def render(folder: str, components: Sequence[str] = ()) -> list[Object]:
    """The objects of a folder below deploy/kustomize, with these components on top."""
    if not components:
        return list(_render(KUSTOMIZE / folder))
    with tempfile.TemporaryDirectory(dir=KUSTOMIZE, prefix=".test-") as temporary:
        kustomization = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": [f"../{folder}"],
            "components": [f"../components/{name}" for name in components],
        }
        (Path(temporary) / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
        return list(_render(Path(temporary)))


def render_edited(overlay: str, component: str) -> list[Object]:
    """The objects of an overlay whose own list of components somebody has added this one to."""
    with tempfile.TemporaryDirectory(dir=KUSTOMIZE, prefix=".test-") as temporary:
        folder = Path(temporary) / overlay  # as deep as the overlay itself, so its paths stay right
        shutil.copytree(KUSTOMIZE / "overlays" / overlay, folder)
        file = folder / "kustomization.yaml"
        kustomization = yaml.safe_load(file.read_text())
        kustomization["components"].append(f"../../components/{component}")
        file.write_text(yaml.safe_dump(kustomization))
        return list(_render(folder))


def _render(folder: Path) -> Iterator[Object]:
    done = subprocess.run([KUBECTL, "kustomize", str(folder)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, f"kustomize warns of {folder}: {done.stderr}"
    return parse(done.stdout)


def parse(text: str) -> Iterator[Object]:
    """The objects of a manifest. The parser in C takes a tenth of the time."""
    return yaml.load_all(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def of_kind(objects: Sequence[Object], *kinds: str) -> list[Object]:
    return [obj for obj in objects if obj["kind"] in kinds]


def by_name(objects: Sequence[Object], kind: str) -> dict[str, Object]:
    return {obj["metadata"]["name"]: obj for obj in of_kind(objects, kind)}


def pod_of(obj: Object) -> Object:
    """The pod's spec in a Deployment, StatefulSet or Job."""
    spec: Object = obj["spec"]["template"]["spec"]
    return spec
