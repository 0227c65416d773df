"""Command lines and configuration of what runs on the node."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.support.layout import (
    API_PORT,
    DNS_ADDRESS,
    ETCD_PEER_PORT,
    ETCD_PORT,
    NODE_NAME,
    PAUSE_IMAGE,
    POD_SUBNET,
    SERVICE_SUBNET,
    NodeLayout,
)

from kubechain_cli.localcluster.control_plane import SERVICE_ACCOUNT_ISSUER, build_etcd_command
from kubechain_cli.localcluster.pki import Pki


@dataclass(frozen=True)
class Component:
    """A process; the next one starts once ``ready`` can be connected to: a port of the node, or a unix socket."""

    name: str
    argv: tuple[str, ...]
    ready: int | Path | None = None


def build_components(node: NodeLayout) -> list[Component]:
    """In the order of their start."""
    binary = Path(node.binary("etcd"))
    data = node.root / "etcd"
    etcd = build_etcd_command(binary, data_dir=data, client_port=ETCD_PORT, peer_port=ETCD_PEER_PORT)
    kubeconfig = f"--kubeconfig={node.kubeconfig}"
    return [
        Component("etcd", etcd, ETCD_PORT),
        Component("kube-apiserver", build_api_server(node), API_PORT),
        Component(
            "containerd", (node.binary("containerd"), "--config", write_containerd(node)), node.containerd_socket
        ),
        Component("kube-controller-manager", build_controller_manager(node)),
        Component("kube-scheduler", (node.binary("kube-scheduler"), kubeconfig, "--leader-elect=false")),
        Component("kubelet", build_kubelet(node)),
        Component("kube-proxy", build_proxy(node)),
    ]


def build_policies(node: NodeLayout) -> Component:
    """The enforcer of NetworkPolicies; it wants the Node object to be there."""
    argv = (
        node.binary("netpol"),
        f"--kubeconfig={node.kubeconfig}",
        f"--hostname-override={NODE_NAME}",
        f"--service-cluster-ip-range={SERVICE_SUBNET}",
    )
    return Component("netpol", argv)


def build_api_server(node: NodeLayout) -> tuple[str, ...]:
    """With every admission plugin that is on by default."""
    pki = Pki(node.pki)
    return (
        node.binary("kube-apiserver"),
        f"--etcd-servers=http://127.0.0.1:{ETCD_PORT}",
        f"--advertise-address={node.node_address}",
        f"--secure-port={API_PORT}",
        f"--cert-dir={node.pki}",
        f"--tls-cert-file={pki.serving_cert}",
        f"--tls-private-key-file={pki.serving_key}",
        f"--token-auth-file={pki.tokens}",
        f"--kubelet-client-certificate={node.pki / 'kubelet-client.crt'}",
        f"--kubelet-client-key={node.pki / 'kubelet-client.key'}",
        # Or exec and logs would look the node's name up in DNS.
        "--kubelet-preferred-address-types=InternalIP",
        "--authorization-mode=Node,RBAC",
        f"--service-account-issuer={SERVICE_ACCOUNT_ISSUER}",
        f"--service-account-key-file={pki.service_account_key}",
        f"--service-account-signing-key-file={pki.service_account_key}",
        f"--service-cluster-ip-range={SERVICE_SUBNET}",
        "--allow-privileged",
        "--shutdown-delay-duration=0s",
        "--profiling=false",
    )


def build_controller_manager(node: NodeLayout) -> tuple[str, ...]:
    """With every controller that is on by default."""
    pki = Pki(node.pki)
    return (
        node.binary("kube-controller-manager"),
        f"--kubeconfig={node.kubeconfig}",
        f"--root-ca-file={pki.ca_cert}",
        f"--service-account-private-key-file={pki.service_account_key}",
        "--use-service-account-credentials",
        "--leader-elect=false",
        "--kube-api-qps=200",
        "--kube-api-burst=400",
    )


def build_kubelet(node: NodeLayout) -> tuple[str, ...]:
    config = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": False},
            "x509": {"clientCAFile": str(node.pki / "kubelet-client.crt")},
        },
        # Whoever has the API server's certificate is the API server.
        "authorization": {"mode": "AlwaysAllow"},
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{node.cgroup}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "enforceNodeAllocatable": [],
        "containerRuntimeEndpoint": f"unix://{node.containerd_socket}",
        "podLogsDir": str(node.root / "pods"),
        "clusterDNS": [DNS_ADDRESS],
        "clusterDomain": "cluster.local",
        "resolvConf": str(node.root / "resolv.conf"),
        "imageGCHighThresholdPercent": 100,
        # A test's machine may be as full as it likes.
        "evictionHard": {"memory.available": "50Mi", "nodefs.available": "0%", "imagefs.available": "0%"},
        "registryPullQPS": 0,
        "serializeImagePulls": False,
        "nodeStatusUpdateFrequency": "5s",
        "syncFrequency": "10s",
    }
    file = node.root / "kubelet.json"
    file.write_text(json.dumps(config))
    return (
        node.binary("kubelet"),
        f"--kubeconfig={node.kubeconfig}",
        f"--config={file}",
        f"--root-dir={node.root / 'kubelet'}",
        f"--hostname-override={NODE_NAME}",
        f"--node-ip={node.node_address}",
    )


def build_proxy(node: NodeLayout) -> tuple[str, ...]:
    return (
        node.binary("kube-proxy"),
        f"--kubeconfig={node.kubeconfig}",
        f"--hostname-override={NODE_NAME}",
        f"--cluster-cidr={POD_SUBNET}",
        "--proxy-mode=iptables",
        # The table's size is the machine's.
        "--conntrack-max-per-core=0",
        "--conntrack-tcp-timeout-established=0",
        "--conntrack-tcp-timeout-close-wait=0",
        # Rules are written at once, not gathered for a second.
        "--iptables-min-sync-period=100ms",
    )


def write_containerd(node: NodeLayout) -> str:
    """Its configuration and that of the pods' network."""
    cni = node.root / "cni"
    cni.mkdir()
    bridge = {
        "type": "bridge",
        "bridge": "pods0",
        "isGateway": True,
        "ipMasq": True,
        "hairpinMode": True,
        "ipam": {"type": "host-local", "ranges": [[{"subnet": POD_SUBNET}]], "routes": [{"dst": "0.0.0.0/0"}]},
    }
    portmap = {"type": "portmap", "capabilities": {"portMappings": True}}
    plugins = [bridge, portmap, {"type": "loopback"}]
    (cni / "10-pods.conflist").write_text(json.dumps({"cniVersion": "1.0.0", "name": "pods", "plugins": plugins}))
    file = node.root / "containerd.toml"
    file.write_text(f"""\
version = 3
root = "{node.root / "containerd"}"
state = "/run/containerd"
[grpc]
  address = "{node.containerd_socket}"
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = "{PAUSE_IMAGE}"
[plugins.'io.containerd.cri.v1.runtime']
  # Or runc dies with "can't get final child's PID from pipe" where a process may not lower its score.
  restrict_oom_score_adj = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = ["{Path(node.binary("bridge")).parent}"]
  conf_dir = "{cni}"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
""")
    return str(file)
