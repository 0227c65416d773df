"""``kubechain doctor``: exit code 0, or 1 when something required is missing."""

from __future__ import annotations

import json
from dataclasses import asdict

import typer

from kubechain_cli.console import new_console, print_findings
from kubechain_cli.localcluster.checkup import Verdict, examine
from kubechain_cli.localcluster.layout import Layout
from kubechain_cli.options import Output, OutputOption, StateDir


def doctor(state_dir: StateDir = None, output: OutputOption = Output.TEXT) -> None:
    """Check this machine and say what is missing. Exit code 1: something required is missing."""
    findings = examine(Layout.at(state_dir))
    if output is Output.JSON:
        typer.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        print_findings(new_console(), findings)
    raise typer.Exit(1 if any(finding.verdict is Verdict.MISSING for finding in findings) else 0)
