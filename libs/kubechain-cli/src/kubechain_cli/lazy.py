"""A typer group that imports a command's module only when that command is run.

``kubechain --help`` must not pay for the Kubernetes client, and a broken import in one command must not break the rest.
The listing is made of light stand-ins that carry the name and one line of help.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup


def build_group(commands: Mapping[str, tuple[str, str]]) -> type[TyperGroup]:
    """A group class for ``{name: (module with a function of this name, one line of help)}``, listed in this order."""

    class LazyGroup(TyperGroup):
        def list_commands(self, ctx: Any) -> list[str]:
            return list(commands)

        def get_command(self, ctx: Any, cmd_name: str) -> Any:
            if cmd_name not in commands:
                return None
            return TyperCommand(cmd_name, help=commands[cmd_name][1])

        def resolve_command(self, ctx: Any, args: list[str]) -> Any:
            name, command, rest = super().resolve_command(ctx, args)
            if name is not None and command is not None:
                command = load_command(name, commands[name][0])
            return name, command, rest

    return LazyGroup


def load_command(name: str, module: str) -> Any:
    """The real command, with its options."""
    function = getattr(importlib.import_module(module), name)
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command(name)(function)
    return typer.main.get_command(app)
