"""Command lines of etcd, the API server and the controller manager.

Tuned for a development machine: no fsync, no leader election, no profiling, and none of the admission plugins and
controllers that exist for pods. RBAC, garbage collection and namespace deletion work as in any cluster.
"""

from __future__ import annotations

import os
from pathlib import Path

from kubechain_cli.localcluster.pki import Pki

SERVICE_ACCOUNT_ISSUER = "https://kubernetes.default.svc"

CONTROLLERS = (
    "clusterrole-aggregation-controller",
    "garbage-collector-controller",
    "namespace-controller",
    "root-ca-certificate-publisher-controller",
    "serviceaccount-controller",
    "serviceaccount-token-controller",
)

# These look after pods, nodes, volumes and ingresses, which this cluster does not run.
DISABLED_ADMISSION = (
    "ServiceAccount",
    "DefaultIngressClass",
    "DefaultStorageClass",
    "DefaultTolerationSeconds",
    "PersistentVolumeClaimResize",
    "PodSecurity",
    "Priority",
    "ResourceQuota",
    "RuntimeClass",
    "StorageObjectInUseProtection",
    "TaintNodesByCondition",
)

_MOST_MEMORY_MIB = 2048
_LEAST_MEMORY_MIB = 1024


def build_go_runtime() -> dict[str, str]:
    """The environment of a part of the control plane, on this machine.

    A third of what the API server does under load is collecting garbage, with Go's thrift for memory. Its heap is small
    here: let it grow before each collection, up to a bound, which is no more than a part of the machine's memory.
    """
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20
    return {"GOGC": "800", "GOMEMLIMIT": f"{choose_memory_limit(memory)}MiB"}


def choose_memory_limit(memory: int) -> int:
    """An eighth of the machine's memory, within bounds. Both in MiB."""
    return min(_MOST_MEMORY_MIB, max(_LEAST_MEMORY_MIB, memory // 8))


def build_etcd_command(binary: Path, *, data_dir: Path, client_port: int, peer_port: int) -> tuple[str, ...]:
    """etcd with one member on 127.0.0.1. Without fsync a power cut may cost the data, a crash of etcd does not."""
    client, peer = f"http://127.0.0.1:{client_port}", f"http://127.0.0.1:{peer_port}"
    return (
        str(binary),
        "--name=kubechain",
        f"--data-dir={data_dir}",
        "--unsafe-no-fsync",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=kubechain={peer}",
        # A single member has nobody to wait for: it may elect itself sooner than after the usual second.
        "--heartbeat-interval=50",
        "--election-timeout=250",
        "--auto-compaction-mode=periodic",
        "--auto-compaction-retention=10m",
        "--quota-backend-bytes=8589934592",
        "--log-level=warn",
    )


def build_api_server_command(binary: Path, *, pki: Pki, port: int, etcd_port: int, cert_dir: Path) -> tuple[str, ...]:
    """kube-apiserver with RBAC on 127.0.0.1."""
    return (
        str(binary),
        f"--etcd-servers=http://127.0.0.1:{etcd_port}",
        "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1",
        f"--secure-port={port}",
        f"--cert-dir={cert_dir}",
        f"--tls-cert-file={pki.serving_cert}",
        f"--tls-private-key-file={pki.serving_key}",
        f"--token-auth-file={pki.tokens}",
        "--authorization-mode=RBAC",
        f"--service-account-issuer={SERVICE_ACCOUNT_ISSUER}",
        f"--service-account-key-file={pki.service_account_key}",
        f"--service-account-signing-key-file={pki.service_account_key}",
        "--service-cluster-ip-range=10.0.0.0/24",
        "--endpoint-reconciler-type=none",
        f"--disable-admission-plugins={','.join(DISABLED_ADMISSION)}",
        # One user owns this cluster: plain limits cost less than fair queueing.
        "--enable-priority-and-fairness=false",
        "--max-requests-inflight=3000",
        "--max-mutating-requests-inflight=1000",
        "--http2-max-streams-per-connection=2000",
        "--shutdown-delay-duration=0s",
        "--profiling=false",
        "--v=1",
    )


def build_controller_manager_command(
    binary: Path, *, pki: Pki, port: int, kubeconfig: Path, cert_dir: Path
) -> tuple[str, ...]:
    """kube-controller-manager with the controllers this product needs and no others."""
    return (
        str(binary),
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        # There is no CA of clients to be looked up.
        "--authentication-skip-lookup=true",
        f"--authorization-kubeconfig={kubeconfig}",
        "--bind-address=127.0.0.1",
        f"--secure-port={port}",
        f"--cert-dir={cert_dir}",
        f"--tls-cert-file={pki.serving_cert}",
        f"--tls-private-key-file={pki.serving_key}",
        f"--root-ca-file={pki.ca_cert}",
        f"--service-account-private-key-file={pki.service_account_key}",
        "--use-service-account-credentials=false",
        "--leader-elect=false",
        f"--controllers={','.join(CONTROLLERS)}",
        "--kube-api-qps=500",
        "--kube-api-burst=1000",
        "--concurrent-gc-syncs=20",
        "--profiling=false",
        "--v=1",
    )
