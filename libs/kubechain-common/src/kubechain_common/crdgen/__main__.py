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
    """Writes what ``build`` gives into the directory of the command line, or finds the drift; the exit code."""
    directory, check = read_arguments(argv)
    return write_or_check(directory, build(), check=check)


def run_on_file(build: Callable[[str], str], argv: Sequence[str] | None) -> int:
    """Writes one file, or finds its drift; ``build`` gets what stands in the file, which is empty if there is none."""
    file, check = read_arguments(argv)
    text = file.read_text(encoding="utf-8") if file.is_file() else None
    wanted = build(text or "")
    if not check:
        file.write_text(wanted, encoding="utf-8")
    elif text != wanted:
        return tell_drift([file])
    return 0


def read_arguments(argv: Sequence[str] | None) -> tuple[Path, bool]:
    """Reads the command line: where the generated things are, and whether they are only to be checked."""
    parser = argparse.ArgumentParser(description="Write what is generated.")
    parser.add_argument("path", type=Path)
    parser.add_argument("--check", action="store_true", help="write nothing, fail when a file differs")
    arguments = parser.parse_args(argv)
    return arguments.path, arguments.check


def write_or_check(directory: Path, files: Mapping[str, str], *, check: bool) -> int:
    """Writes the files, or finds those that differ; the exit code."""
    if check:
        return tell_drift([directory / name for name in find_drift(directory, files)])
    write_files(directory, files)
    return 0


def tell_drift(files: Sequence[Path]) -> int:
    """Names the files that differ, on stderr; the exit code."""
    for file in files:
        print(f"{file} differs from its source: run `make crds`", file=sys.stderr)
    return 1 if files else 0


if __name__ == "__main__":
    sys.exit(main())
