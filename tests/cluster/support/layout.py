"""Where everything of one node lies, and which addresses it has. Inside the node and outside see the same paths."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

POD_SUBNET = "10.244.0.0/24"
# Its first address is a name of the API server's certificate (kubechain_cli.localcluster.certificates).
SERVICE_SUBNET = "10.0.0.0/24"
DNS_ADDRESS = "10.0.0.10"
API_PORT = 6443
ETCD_PORT, ETCD_PEER_PORT = 2379, 2380
NODE_NAME = "node0"
PAUSE_IMAGE = "kubechain.test/pause:local"
DNS_IMAGE = "kubechain.test/coredns:local"


@dataclass(frozen=True)
class NodeLayout:
    """``number`` (0 to 63) tells nodes on one machine apart; ``binaries`` are paths by name."""

    state: str
    number: int
    binaries: dict[str, str]

    @property
    def root(self) -> Path:
        return Path(self.state)

    @property
    def pki(self) -> Path:
        return self.root / "pki"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def kubeconfig(self) -> Path:
        """For the test, on the machine itself and inside the node."""
        return self.root / "kubeconfig"

    @property
    def containerd_socket(self) -> Path:
        """Inside the node only."""
        return Path("/run/containerd/containerd.sock")

    @property
    def link(self) -> str:
        """The network link of the machine that leads to the node."""
        return f"kcnode{self.number}"

    @property
    def machine_address(self) -> str:
        """The machine as the node and its pods see it. The network is one for benchmarks (RFC 2544), so no one's."""
        return f"198.18.{self.number}.1"

    @property
    def node_address(self) -> str:
        return f"198.18.{self.number}.2"

    @property
    def subnet(self) -> str:
        return f"198.18.{self.number}.0/30"

    @property
    def cgroup(self) -> str:
        return f"kubechain-node{self.number}"

    @property
    def server_url(self) -> str:
        return f"https://{self.node_address}:{API_PORT}"

    def binary(self, name: str) -> str:
        return self.binaries[name]

    def write(self) -> Path:
        file = self.root / "node.json"
        file.write_text(json.dumps(asdict(self)))
        return file

    @classmethod
    def read(cls, file: Path) -> NodeLayout:
        return cls(**json.loads(file.read_text()))
