"""Writes what a cluster is installed from by one ``kubectl apply -f``: deploy/release/.

``python -m scripts.release [VERSION] [--registry R] [--check]``

latest.yaml and v<VERSION>.yaml hold everything, CRDs first; latest-crds.yaml, v<VERSION>-crds.yaml and latest-crd.yaml
(as the seed spelled it) the CRDs alone. Files of other versions stay as they are.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from scripts.images.build import NAMES, ROOT, Plan, read_version

KUSTOMIZE = ROOT / "deploy" / "kustomize"
RELEASE = ROOT / "deploy" / "release"

_HEADER = "# KubeChain {version}. GENERATED from deploy/kustomize by `make release`. Do not edit.\n"


def build_files(version: str, registry: str = "") -> dict[str, str]:
    """File name -> text."""
    header = _HEADER.format(version=version)
    whole = header + render_base(version, registry)
    crds = header + render(KUSTOMIZE / "crds")
    return {
        "latest.yaml": whole,
        f"v{version}.yaml": whole,
        "latest-crds.yaml": crds,
        f"v{version}-crds.yaml": crds,
        "latest-crd.yaml": crds,
    }


def render_base(version: str, registry: str) -> str:
    """The base with the images of this version."""
    plan = Plan(version, registry)
    images = "".join(
        f"- {{name: kubechain/{name}, newName: {plan.repository(name)}, newTag: {plan.version_of(name)!r}}}\n"
        for name in NAMES
    )
    with tempfile.TemporaryDirectory(dir=KUSTOMIZE, prefix=".release-") as folder:
        head = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nsortOptions: {order: legacy}\n"
        text = f"{head}resources: [../base]\nimages:\n{images}patches:\n{build_renaming(version)}"
        (Path(folder) / "kustomization.yaml").write_text(text, encoding="utf-8")
        return render(Path(folder))


def build_renaming(version: str) -> str:
    """The Job that makes the Secrets gets the name of this version: what a Job runs can not be changed afterwards."""
    change = json.dumps([{"op": "replace", "path": "/metadata/name", "value": job_name(version)}])
    return f"- target: {{kind: Job}}\n  options: {{allowNameChange: true}}\n  patch: '{change}'\n"


def job_name(version: str) -> str:
    """Fit for the label that Kubernetes makes of it."""
    return f"kubechain-bootstrap-{re.sub('[^a-z0-9]+', '-', version.lower()).strip('-')}"


def render(folder: Path) -> str:
    """What kustomize makes of a folder. Raises CalledProcessError, after kubectl has said why."""
    kubectl = Path(sys.executable).parent / "kubectl"
    command = [str(kubectl), "kustomize", str(folder)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="release", description="Write the manifests of a release.")
    parser.add_argument("version", nargs="?", default="", help="the workspace's when empty")
    parser.add_argument("--registry", default="", help="comes before kubechain/<name>")
    parser.add_argument("--check", action="store_true", help="write nothing, fail when a file differs")
    arguments = parser.parse_args(argv)
    files = build_files(arguments.version or read_version(), arguments.registry)
    if not arguments.check:
        RELEASE.mkdir(exist_ok=True)
        for name, text in files.items():
            (RELEASE / name).write_text(text, encoding="utf-8")
        return 0
    drift = [
        name
        for name, text in files.items()
        if not (RELEASE / name).is_file() or (RELEASE / name).read_text(encoding="utf-8") != text
    ]
    for name in drift:
        print(f"deploy/release/{name} differs from deploy/kustomize: run `make release`", file=sys.stderr)
    return 1 if drift else 0


if __name__ == "__main__":
    sys.exit(main())
