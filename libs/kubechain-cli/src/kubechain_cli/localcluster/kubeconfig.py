"""The kubeconfig of the local cluster. Certificates are embedded, so the file can be copied anywhere."""

from __future__ import annotations

import base64
import json
from pathlib import Path

from kubechain_cli.localcluster.files import write_atomic
from kubechain_cli.localcluster.pki import Pki

CONTEXT = "kubechain"


def build_kubeconfig(server: str, pki: Pki, identity: str) -> str:
    """The text of a kubeconfig for one identity of the PKI (JSON, which is YAML)."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": CONTEXT, "cluster": {"server": server, "certificate-authority-data": _encoded(pki.ca_cert)}}
        ],
        "users": [
            {
                "name": identity,
                "user": {
                    "client-certificate-data": _encoded(pki.client_cert(identity)),
                    "client-key-data": _encoded(pki.client_key(identity)),
                },
            }
        ],
        "contexts": [{"name": CONTEXT, "context": {"cluster": CONTEXT, "user": identity, "namespace": "default"}}],
        "current-context": CONTEXT,
    }
    return json.dumps(config, indent=2) + "\n"


def write_kubeconfig(path: Path, server: str, pki: Pki, identity: str) -> None:
    """Write the file readable by its owner alone."""
    write_atomic(path, build_kubeconfig(server, pki, identity), mode=0o600)


def _encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
