"""The real kubectl, as a person uses it: apply YAML, get tables, describe, wait. Objects are read without it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.e2e.support.api_server import NotReadableError, api_server_of
from tests.e2e.support.cluster import find_kubectl
from tests.e2e.support.conditions import parse_condition

Manifest = Mapping[str, Any]

WAIT_SECONDS = 20.0
UNCOLLECTED = {"GOGC": "off"}
"""Of what kubectl does in its tenth of a second a fifth would be collecting garbage."""


class Kubectl:
    """kubectl in one namespace of one cluster."""

    def __init__(self, kubeconfig: Path, namespace: str) -> None:
        self._base = [find_kubectl(), "--kubeconfig", str(kubeconfig), "--namespace", namespace]
        self.namespace = namespace
        self.api_server = api_server_of(kubeconfig)

    def try_run(
        self, *arguments: str, input: str | None = None, timeout: float = 60.0
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl, whatever comes of it."""
        return subprocess.run(
            [*self._base, *arguments],
            input=input,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            env={**os.environ, **UNCOLLECTED},
        )

    def __call__(self, *arguments: str, input: str | None = None, timeout: float = 60.0) -> str:
        """What kubectl printed; fails when it failed."""
        done = self.try_run(*arguments, input=input, timeout=timeout)
        assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr or done.stdout}"
        return done.stdout

    def apply(self, *manifests: Manifest | str) -> str:
        """`kubectl apply -f -` of YAML text or of objects."""
        texts = [m if isinstance(m, str) else json.dumps(m) for m in manifests]
        return self("apply", "-f", "-", input="\n---\n".join(texts))

    def get(self, kind: str, name: str) -> dict[str, Any]:
        """The object."""
        try:
            return self.api_server.get(self.namespace, kind, name)
        except NotReadableError:
            found: dict[str, Any] = json.loads(self("get", kind, name, "-o", "json"))
            return found

    def list(self, kind: str, *arguments: str) -> list[dict[str, Any]]:
        """All objects of the kind, or those that the arguments select."""
        try:
            return self.api_server.list(self.namespace, kind, arguments)
        except NotReadableError:
            items: list[dict[str, Any]] = json.loads(self("get", kind, *arguments, "-o", "json"))["items"]
            return items

    def wait(self, target: str, condition: str = "condition=Ready", timeout: float = WAIT_SECONDS) -> None:
        """As `kubectl wait --for=...` does; a failure shows the object."""
        try:
            self._await(target, condition, timeout)
        except AssertionError as error:
            shown = self.try_run("get", target, "-o", "yaml")
            said = f"{target} did not reach {condition} in {timeout:g} s: {error}\n{shown.stdout}{shown.stderr}"
            raise AssertionError(said) from error

    def _await(self, target: str, condition: str, timeout: float) -> None:
        kind, _, name = target.partition("/")
        with suppress(NotReadableError):
            if holds := parse_condition(condition):
                self.api_server.await_object(self.namespace, kind, name, holds, timeout)
                return
        self("wait", f"--for={condition}", target, f"--timeout={timeout:g}s", timeout=timeout + 20)

    def delete_events(self) -> None:
        """All of the namespace. kubectl asks for each of them, which may take half a minute."""
        try:
            self.api_server.delete_events(self.namespace)
        except NotReadableError:
            self("delete", "events", "--all", timeout=180)

    def finish(self, task: str, condition: str = "Complete", timeout: float = WAIT_SECONDS) -> dict[str, Any]:
        """The Task once it has the condition."""
        self.wait(f"task/{task}", f"condition={condition}", timeout)
        return self.get("task", task)
