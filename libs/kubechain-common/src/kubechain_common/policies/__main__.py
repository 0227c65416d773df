"""``python -m kubechain_common.policies deploy/kustomize/policies [--check]``"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from kubechain_common.crdgen.__main__ import run
from kubechain_common.crdgen.files import build_files
from kubechain_common.policies import build_policies

SOURCE = "kubechain_common.policies"


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the policies, or with ``--check`` exits with 1 and the names of the files that differ."""
    return run(lambda: build_files(build_policies(), SOURCE), argv)


if __name__ == "__main__":
    sys.exit(main())
