"""The users of NATS as a part of its configuration: ``python -m kubechain_common.messages.nats_config FILE [--check]``.

A password stands there as a variable, whose value another file holds that the configuration includes, so this one can
be committed and shown around.

https://docs.nats.io/running-a-nats-service/configuration#variables
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence

from kubechain_common.messages.permissions import USERS, build_publish_rights, build_subscribe_rights

_HEADER = "# GENERATED from kubechain_common.messages.permissions by `make crds`. Do not edit.\n"
_INCLUDE = (
    "# Beside the folder of this file; made by the Job of base/bootstrap.\ninclude ../nats-users/passwords.conf\n"
)


def build_users_config(passwords: str, *more: str) -> str:
    """The ``authorization`` block with each service's user and ``more``. ``passwords``: what
    ``build_passwords_config`` gave, or a line that includes a file with it.
    """
    users = "\n".join((*map(_build_user, USERS), *more))
    return f"{passwords}authorization {{\n  users: [\n{users}\n  ]\n}}\n"


def build_passwords_config(passwords: Mapping[str, str]) -> str:
    """The variables: one password for each user. It is secret."""
    return "".join(f"{password_variable(user)}: {json.dumps(password)}\n" for user, password in passwords.items())


def build_unbound_user(user: str, password: str) -> str:
    """A user for ``build_users_config`` that may do everything."""
    return f"    {{user: {json.dumps(user)}, password: {json.dumps(password)}}}"


def password_variable(user: str) -> str:
    return f"{user.replace('-', '_').upper()}_PASSWORD"


def _build_user(user: str) -> str:
    return "\n".join(
        (
            "    {",
            f"      user: {json.dumps(user)}",
            f"      password: ${password_variable(user)}",
            "      permissions: {",
            f"        publish: {{allow: [{_build_list(build_publish_rights(user))}]}}",
            f"        subscribe: {{allow: [{_build_list(build_subscribe_rights(user))}]}}",
            "      }",
            "    }",
        )
    )


def _build_list(subjects: Sequence[str]) -> str:
    return "".join(f"\n          {json.dumps(subject)}" for subject in subjects) + "\n        "


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the file, or with ``--check`` exits with 1 when it differs."""
    # Whoever only builds the users does not need the models that come with it.
    from kubechain_common.crdgen.__main__ import run_on_file

    return run_on_file(lambda _: build_users_config(f"{_HEADER}{_INCLUDE}"), argv)


if __name__ == "__main__":
    sys.exit(main())
