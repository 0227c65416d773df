"""People of one namespace: ServiceAccounts with roles of their own, and calls for them to answer."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

Kubectl = Callable[..., "subprocess.CompletedProcess[str]"]
GROUP = "kubechain.humanlayer.dev"
POLICIES = Path(__file__).resolve().parents[2] / "deploy" / "kustomize" / "policies"
PATCHER = [{"apiGroups": [GROUP], "resources": ["taskruntoolcalls"], "verbs": ["get", "create", "patch", "update"]}]


class Place:
    """A namespace with ServiceAccounts in it, and calls to answer."""

    def __init__(self, kubectl: Kubectl, namespace: str) -> None:
        self.namespace = namespace
        self.kubectl = kubectl
        self.server = json.loads(self.admin("config", "view", "-o", "json", "--raw").stdout)["clusters"][0]["cluster"]

    def admin(self, *arguments: str, manifest: dict[str, Any] | None = None) -> subprocess.CompletedProcess[str]:
        done = self.kubectl("-n", self.namespace, *arguments, manifest=manifest)
        assert done.returncode == 0, done.stderr
        return done

    def add_user(self, name: str, *roles: str) -> User:
        """A ServiceAccount with these ClusterRoles in this namespace."""
        self.admin("create", "serviceaccount", name)
        for role in roles:
            account = f"--serviceaccount={self.namespace}:{name}"
            self.admin("create", "rolebinding", f"{name}-{role}", f"--clusterrole={role}", account)
        return User(self, name, self.admin("create", "token", name).stdout.strip())

    def add_call(self, name: str, tool_type: str = "MCP", **spec: Any) -> None:
        self.admin("create", "-f", "-", manifest=build_call(name, tool_type, **spec))

    def await_answer(self, name: str, status: str, **more: Any) -> None:
        """Have the call wait, as toolcall-controller would."""
        self.set_status(name, phase="Pending", status=status, startTime="2026-01-02T03:04:05Z", **more)

    def set_status(self, name: str, **status: Any) -> None:
        body = json.dumps({"status": status})
        self.admin("patch", "taskruntoolcall", name, "--subresource=status", "--type=merge", "-p", body)

    def spec_of(self, name: str) -> dict[str, Any]:
        spec: dict[str, Any] = json.loads(self.admin("get", "taskruntoolcall", name, "-o", "json").stdout)["spec"]
        return spec


class User:
    def __init__(self, place: Place, name: str, token: str) -> None:
        self.full_name = f"system:serviceaccount:{place.namespace}:{name}"
        self._place = place
        self._token = token

    def write_kubeconfig(self, path: Path) -> Path:
        """A kubeconfig for this user alone."""
        named = {
            "clusters": [{"name": "c", "cluster": self._place.server}],
            "users": [{"name": "u", "user": {"token": self._token}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        }
        path.write_text(json.dumps({"apiVersion": "v1", "kind": "Config", "current-context": "x", **named}))
        return path

    def kubectl(self, *arguments: str, manifest: dict[str, Any] | None = None) -> subprocess.CompletedProcess[str]:
        """kubectl as this user: the token takes the place of the kubeconfig's."""
        return self._place.kubectl(f"--token={self._token}", "-n", self._place.namespace, *arguments, manifest=manifest)

    def patch(self, call: str, **spec: Any) -> subprocess.CompletedProcess[str]:
        return self.kubectl("patch", "taskruntoolcall", call, "--type=merge", "-p", json.dumps({"spec": spec}))


def build_call(name: str, tool_type: str = "MCP", **spec: Any) -> dict[str, Any]:
    full = {
        "toolCallId": "call_1",
        "taskRunRef": {"name": "t"},
        "toolRef": {"name": "fetch__fetch"},
        "toolType": tool_type,
        "arguments": "{}",
        **spec,
    }
    return {"apiVersion": f"{GROUP}/v1alpha1", "kind": "TaskRunToolCall", "metadata": {"name": name}, "spec": full}
