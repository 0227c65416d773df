"""KubeChain on a cluster: installed from YAML, adjusted to the machine's network, removed to the last object."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from typing import Any

from scripts.images.network import find_certificates
from tests.e2e.support.kubectl import Kubectl

NAMESPACE = "kubechain-system"
SERVICES = ("task-controller", "llm-gateway", "toolcall-controller", "mcp-host", "human-bridge")
WORKLOADS = (*(f"deployment/{service}" for service in SERVICES), "statefulset/nats")
AVAILABLE_SECONDS = 180.0
GONE_SECONDS = 180.0
# What an MCP server needs to be fetched from a package index, where this machine needs it too.
NETWORK = re.compile(r"(https?|all|no)_proxy|(UV|PIP|NPM_CONFIG)_\w*(INDEX|HOST|TIMEOUT|REGISTRY)\w*", re.IGNORECASE)
CERTIFICATES = "/etc/site-certificates/ca.crt"
# Made and remade by the cluster itself, whoever is installed on it.
FLEETING = ("events", "events.events.k8s.io", "leases.coordination.k8s.io", "nodes", "componentstatuses")
CHURNING = ("pods", "endpointslices.discovery.k8s.io", "pods.metrics.k8s.io")

Row = tuple[str, str, str]
"""(kind, namespace, name)."""


@dataclass(frozen=True)
class Product:
    """``kubectl`` works in the namespace of KubeChain."""

    kubectl: Kubectl

    def await_available(self) -> None:
        """Every deployment has all its replicas, of the newest revision."""
        for workload in WORKLOADS:
            self.kubectl(
                "rollout", "status", workload, f"--timeout={AVAILABLE_SECONDS:g}s", timeout=AVAILABLE_SECONDS + 20
            )

    def adjust(self, **bridge: str) -> None:
        """As an administrator of this network would: certificates and a package index for MCP servers.

        ``bridge`` are settings of human-bridge.
        """
        environment = {name: value for name, value in os.environ.items() if NETWORK.fullmatch(name)}
        certificates = find_certificates(os.environ)
        if certificates:
            self.kubectl("create", "configmap", "site-certificates", f"--from-file=ca.crt={certificates}")
            environment |= {"SSL_CERT_FILE": CERTIFICATES, "NODE_EXTRA_CA_CERTS": CERTIFICATES}
        self.patch("mcp-host", environment, "site-certificates" if certificates else None)
        if bridge:
            self.patch("human-bridge", bridge)
        self.await_available()

    def patch(self, deployment: str, environment: dict[str, str], mounted: str | None = None) -> None:
        container: dict[str, Any] = {
            "name": deployment,
            "env": [{"name": name, "value": value} for name, value in environment.items()],
        }
        pod: dict[str, Any] = {"containers": [container]}
        if mounted:
            container["volumeMounts"] = [{"name": mounted, "mountPath": os.path.dirname(CERTIFICATES)}]
            pod["volumes"] = [{"name": mounted, "configMap": {"name": mounted}}]
        self.kubectl("patch", "deployment", deployment, "-p", json.dumps({"spec": {"template": {"spec": pod}}}))

    def logs(self, lines: int = 40) -> str:
        """The end of every service's log, and the pods."""
        parts = [self.kubectl.try_run("get", "pods", "-o", "wide").stdout]
        for workload in WORKLOADS:
            parts += [f"--- {workload}", self.kubectl.try_run("logs", workload, f"--tail={lines}").stdout]
        return "\n".join(parts)


def list_everything(kubectl: Kubectl) -> set[Row]:
    """Every object of every kind, but for what comes and goes by itself."""
    kinds = [
        kind
        for kind in kubectl("api-resources", "--verbs=list", "-o", "name", "--cached=false").split()
        if kind not in (*FLEETING, *CHURNING)
    ]
    columns = "custom-columns=KIND:.kind,NAMESPACE:.metadata.namespace,NAME:.metadata.name"
    shown = kubectl("get", ",".join(kinds), "--all-namespaces", "--no-headers", "-o", columns, timeout=120)
    rows = (line.split() for line in shown.splitlines() if line.strip())
    return {(kind, namespace, name) for kind, namespace, name in rows}
