"""The keys of a local control plane: one CA, one serving certificate, and the key that signs service account tokens.

EC keys (P-256) because they are made in a millisecond and TLS handshakes with them are cheap. The control plane
listens on 127.0.0.1 only, so the validity is long: a cluster kept for months should not die of its certificates.
"""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from kubechain_cli.localcluster.files import write_atomic
from kubechain_cli.localcluster.pki import Pki

CA_NAME = "kubechain-local-ca"
VALIDITY = datetime.timedelta(days=3650)
SERVER_NAMES = ("localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc")
# 10.0.0.1 is the `kubernetes` Service, the first address of --service-cluster-ip-range.
SERVER_ADDRESSES = ("127.0.0.1", "::1", "10.0.0.1")


def ensure_pki(directory: Path) -> Pki:
    """Make all keys and certificates unless the directory already holds them; every file is mode 600."""
    pki = Pki(directory)
    files = (pki.ca_cert, pki.serving_cert, pki.serving_key, pki.service_account_key)
    if all(file.is_file() for file in files):
        return pki
    ca_key, serving_key = _new_key(), _new_key()
    write_atomic(pki.serving_key, _key_pem(serving_key))
    write_atomic(pki.serving_cert, _cert_pem(_build_serving(serving_key, ca_key)))
    write_atomic(pki.service_account_key, _key_pem(_new_key()))
    write_atomic(pki.ca_cert, _cert_pem(_build_authority(ca_key)))
    return pki


def _build_authority(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
    return (
        _builder(CA_NAME, key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        .add_extension(usage, True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        .sign(key, hashes.SHA256())
    )


def _build_serving(key: ec.EllipticCurvePrivateKey, ca_key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    return (
        _builder("kube-apiserver", key)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), False)
        .add_extension(_server_names(), False)
        .sign(ca_key, hashes.SHA256())
    )


def _new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _server_names() -> x509.SubjectAlternativeName:
    names: list[x509.GeneralName] = [x509.DNSName(name) for name in SERVER_NAMES]
    names += [x509.IPAddress(ipaddress.ip_address(address)) for address in SERVER_ADDRESSES]
    return x509.SubjectAlternativeName(names)


def _builder(common_name: str, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    """Everything but the extensions, by the authority as the issuer."""
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(common_name))
        .issuer_name(_name(CA_NAME))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + VALIDITY)
    )


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )


def _cert_pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
