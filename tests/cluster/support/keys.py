"""Who signs in at the node's API server, and by what the kubelet knows the API server."""

from __future__ import annotations

import datetime
import json

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from tests.cluster.support.layout import NodeLayout

from kubechain_cli.localcluster.certificates import ensure_pki
from kubechain_cli.localcluster.kubeconfig import build_kubeconfig
from kubechain_cli.localcluster.tokens import administrator, ensure_tokens

ADMIN = administrator("admin")


def write_keys(node: NodeLayout) -> None:
    """Everything in the node's `pki`, and the kubeconfig that its parts and the tests share."""
    node.pki.mkdir(mode=0o700)
    pki = ensure_pki(node.pki)
    ensure_tokens(pki.tokens, [ADMIN])
    write_kubelet_client(node)
    config = json.loads(build_kubeconfig(node.server_url, pki, ADMIN))
    # The certificate is for names of the cluster, not for this address.
    config["clusters"][0]["cluster"]["tls-server-name"] = "kubernetes"
    node.kubeconfig.touch(mode=0o600)
    node.kubeconfig.write_text(json.dumps(config))


def write_kubelet_client(node: NodeLayout) -> None:
    """A certificate by which the API server signs in at the kubelet; it vouches for itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kube-apiserver")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file = node.pki / "kubelet-client.key"
    file.touch(mode=0o600)
    file.write_bytes(private)
    (node.pki / "kubelet-client.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
