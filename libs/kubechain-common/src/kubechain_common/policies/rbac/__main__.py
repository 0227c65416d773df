"""``python -m kubechain_common.policies.rbac deploy/kustomize/base [--check]``"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from kubechain_common.crdgen.__main__ import run
from kubechain_common.crdgen.files import build_files
from kubechain_common.policies.rbac import RIGHTS, build_service_roles

SOURCE = "kubechain_common.policies.rbac"


def main(argv: Sequence[str] | None = None) -> int:
    """Writes ``<service>/rbac`` of each service, or with ``--check`` exits with 1 and names what differs."""
    parser = argparse.ArgumentParser(description="Write the services' roles.")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--check", action="store_true", help="write nothing, fail when a file differs")
    arguments = parser.parse_args(argv)
    options = ["--check"] if arguments.check else []
    return max(
        run(partial(_build, service), [str(arguments.directory / service / "rbac"), *options]) for service in RIGHTS
    )


def _build(service: str) -> dict[str, str]:
    return build_files(build_service_roles(service), SOURCE)


if __name__ == "__main__":
    sys.exit(main())
