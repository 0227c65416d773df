"""``python -m kubechain_common.policies.rbac deploy/kustomize/base [--check]``"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from kubechain_common.crdgen.__main__ import read_arguments, write_or_check
from kubechain_common.crdgen.files import build_files
from kubechain_common.policies.rbac import RIGHTS, build_service_roles

SOURCE = "kubechain_common.policies.rbac"


def main(argv: Sequence[str] | None = None) -> int:
    """Writes ``<service>/rbac`` of each service, or with ``--check`` exits with 1 and names what differs."""
    directory, check = read_arguments(argv)
    return max(
        write_or_check(directory / service / "rbac", build_files(build_service_roles(service), SOURCE), check=check)
        for service in RIGHTS
    )


if __name__ == "__main__":
    sys.exit(main())
