"""The generated part of docs/rbac.md: what each service may do, and why.

python -m kubechain_common.policies.rbac.docs docs/rbac.md [--check]
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

from kubechain_common.crdgen.__main__ import run_on_file
from kubechain_common.crdgen.pages import build_table, put_into
from kubechain_common.policies.rbac.rights import RIGHTS, Right

COMMAND = "make crds"
HEAD = ("service account", "where", "API group", "resource", "of these names", "verbs", "why")
EVERYWHERE, AT_HOME = "everywhere", "kubechain-system"


def render() -> str:
    """Everything between the two marks."""
    return build_table(HEAD, (row for service in RIGHTS for row in _rows_of(service)))


def _rows_of(service: str) -> Iterator[Sequence[str]]:
    rights = RIGHTS[service]
    for where, held in ((EVERYWHERE, (*rights.everywhere, *rights.secrets)), (AT_HOME, rights.at_home)):
        for right in held:
            yield _row(service, where, right)


def _row(service: str, where: str, right: Right) -> Sequence[str]:
    names, verbs = ", ".join(right.names), ", ".join(right.verbs)
    return [service, where, right.group, right.resource, names, verbs, right.why]


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the page, or with ``--check`` exits with 1 when it differs."""
    return run_on_file(lambda page: put_into(page, render(), COMMAND), argv)


if __name__ == "__main__":
    sys.exit(main())
