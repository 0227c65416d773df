"""``python -m kubechain_common.crdgen crds/ [--check]``"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from kubechain_common.crdgen import build_crds
from kubechain_common.crdgen.files import build_files, find_drift, write_files


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the CRDs, or with ``--check`` exits with 1 and the names of the files that differ from the models."""
    return run(lambda: build_files({name: [crd] for name, crd in build_crds().items()}), argv)


def run(build: Callable[[], Mapping[str, str]], argv: Sequence[str] | None) -> int:
    """Write the files that are built into the directory of the command line, or find the drift."""
    parser = argparse.ArgumentParser(description="Write generated manifests.")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--check", action="store_true", help="write nothing, fail when a file differs")
    arguments = parser.parse_args(argv)
    files = build()
    if not arguments.check:
        write_files(arguments.directory, files)
        return 0
    drift = find_drift(arguments.directory, files)
    for name in drift:
        print(f"{arguments.directory / name} differs from its source: run `make crds`", file=sys.stderr)
    return 1 if drift else 0


if __name__ == "__main__":
    sys.exit(main())
