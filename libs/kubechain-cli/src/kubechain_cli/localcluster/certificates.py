"""The keys of a local control plane: one CA, one serving certificate, one client certificate per identity.

EC keys (P-256) because they are made in a millisecond and TLS handshakes with them are cheap. The control plane
listens on 127.0.0.1 only, so the validity is long: a cluster kept for months should not die of its certificates.
"""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from kubechain_cli.localcluster.files import write_atomic
from kubechain_cli.localcluster.pki import Pki

VALIDITY = datetime.timedelta(days=3650)
SERVER_NAMES = ("localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc")
# 10.0.0.1 is the `kubernetes` Service, the first address of --service-cluster-ip-range.
SERVER_ADDRESSES = ("127.0.0.1", "::1", "10.0.0.1")
ADMIN_GROUP = "system:masters"


def ensure_pki(directory: Path, identities: tuple[str, ...]) -> Pki:
    """Make all keys and certificates unless the directory already holds them; every file is mode 600.

    Each identity is a cluster administrator: the user `kubechain:<identity>` in the group system:masters.
    """
    pki = Pki(directory)
    if pki.complete(identities):
        return pki
    authority = _Authority.create()
    for identity in identities:
        subject = _name(f"kubechain:{identity}", ADMIN_GROUP)
        _write_pair(
            pki.client_cert(identity),
            pki.client_key(identity),
            *authority.issue(subject, ExtendedKeyUsageOID.CLIENT_AUTH),
        )
    serving = authority.issue(_name("kube-apiserver"), ExtendedKeyUsageOID.SERVER_AUTH, _server_names())
    _write_pair(pki.serving_cert, pki.serving_key, *serving)
    write_atomic(pki.service_account_key, _key_pem(_new_key()))
    write_atomic(pki.ca_cert, authority.certificate.public_bytes(serialization.Encoding.PEM))
    return pki


@dataclass(frozen=True)
class _Authority:
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @classmethod
    def create(cls) -> _Authority:
        key = _new_key()
        subject = _name("kubechain-local-ca")
        builder = _builder(subject, subject, key).add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
        builder = builder.add_extension(usage, True)
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        return cls(key, builder.sign(key, hashes.SHA256()))

    def issue(
        self, subject: x509.Name, usage: x509.ObjectIdentifier, names: x509.SubjectAlternativeName | None = None
    ) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        key = _new_key()
        builder = _builder(subject, self.certificate.subject, key)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), False)
        authority_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        builder = builder.add_extension(authority_id, False)
        if names is not None:
            builder = builder.add_extension(names, False)
        return builder.sign(self.key, hashes.SHA256()), key


def _new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _name(common_name: str, organization: str | None = None) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
    if organization is not None:
        attributes.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
    return x509.Name(attributes)


def _server_names() -> x509.SubjectAlternativeName:
    names: list[x509.GeneralName] = [x509.DNSName(name) for name in SERVER_NAMES]
    names += [x509.IPAddress(ipaddress.ip_address(address)) for address in SERVER_ADDRESSES]
    return x509.SubjectAlternativeName(names)


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + VALIDITY)
    )


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )


def _write_pair(cert: Path, key: Path, certificate: x509.Certificate, private: ec.EllipticCurvePrivateKey) -> None:
    write_atomic(key, _key_pem(private))
    write_atomic(cert, certificate.public_bytes(serialization.Encoding.PEM))
