"""The kubeconfig files that most clusters are reached with, read without the ``kubernetes`` package.

Importing that package takes longer than the rest of a service's start. So one file with a client certificate or a
token is read here; whatever else a kubeconfig may hold (exec plug-ins, auth providers, passwords, several files, keys
that are unknown here) makes ``connect_by_kubeconfig`` return None, and is left to that package, which also finds the
words for what is wrong.
"""

from __future__ import annotations

import base64
import binascii
import ssl
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from kubechain_common.kube.connection import Connection, TokenFile

_CLUSTER = {
    "server": str,
    "certificate-authority": str,
    "certificate-authority-data": str,
    "insecure-skip-tls-verify": bool,
    "tls-server-name": str,
    "proxy-url": str,
}
_USER = {
    "client-certificate": str,
    "client-certificate-data": str,
    "client-key": str,
    "client-key-data": str,
    "token": str,
    "tokenFile": str,
}
# Of no meaning for a connection.
_IGNORED = {"extensions", "disable-compression"}


class _NotPlainError(Exception):
    """The file says something that is left to the ``kubernetes`` package."""


@dataclass(frozen=True)
class _Entry:
    """A cluster or a user: its fields, and the folder that its paths begin at."""

    fields: dict[str, Any]
    folder: Path

    def read(self, name: str) -> bytes | None:
        """The content of ``name``, given as a file or as base64 under ``name-data``, which comes first."""
        if data := self.fields.get(f"{name}-data"):
            try:
                return base64.b64decode(data, validate=True)
            except binascii.Error as error:
                raise _NotPlainError from error
        path = self.fields.get(name)
        return (self.folder / path).read_bytes() if path else None


def connect_by_kubeconfig(file: str) -> Connection | None:
    """The connection that the file describes; None when the file is missing, unusual or wrong."""
    try:
        path = Path(file).expanduser()
        config, folder = _parse(path.read_bytes()), path.absolute().parent
        context = _mapping(_find(config, "contexts", config.get("current-context")).get("context"))
        cluster = _Entry(_checked(_find(config, "clusters", context.get("cluster")).get("cluster"), _CLUSTER), folder)
        user = _Entry(_checked(_find(config, "users", context.get("user")).get("user"), _USER), folder)
        return _build_connection(cluster, user)
    except (_NotPlainError, OSError, ValueError):
        return None


def _parse(content: bytes) -> dict[str, Any]:
    """JSON, as ``kubechain up`` writes it, is YAML that takes a thousandth of the time."""
    try:
        return _mapping(orjson.loads(content))
    except orjson.JSONDecodeError:
        import yaml

        try:
            return _mapping(yaml.safe_load(content))
        except yaml.YAMLError as error:
            raise _NotPlainError from error


def _mapping(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _NotPlainError
    return value


def _find(config: dict[str, Any], kind: str, name: object) -> dict[str, Any]:
    entries = config.get(kind)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise _NotPlainError
    found: list[dict[str, Any]] = [entry for entry in entries if name and entry.get("name") == name]
    if len(found) != 1:
        raise _NotPlainError
    return found[0]


def _checked(fields: Any, known: Mapping[str, type]) -> dict[str, Any]:
    given = {key: value for key, value in _mapping(fields).items() if key not in _IGNORED and value is not None}
    if not all(isinstance(value, known.get(key, ())) for key, value in given.items()):
        raise _NotPlainError
    return given


def _build_connection(cluster: _Entry, user: _Entry) -> Connection:
    server = cluster.fields.get("server", "").rstrip("/")
    if not server.startswith("https://") or ("token" in user.fields and "tokenFile" in user.fields):
        raise _NotPlainError
    authorization, renew = "", None
    if token := user.fields.get("token"):
        authorization = f"Bearer {token}"
    elif path := user.fields.get("tokenFile"):
        file = TokenFile(user.folder / path)
        authorization, renew = file.read(), file.renew
    return Connection(
        host=server,
        ssl_context=_build_ssl_context(cluster, user),
        server_hostname=cluster.fields.get("tls-server-name"),
        proxy=cluster.fields.get("proxy-url"),
        authorization=authorization,
        renew=renew,
    )


def _build_ssl_context(cluster: _Entry, user: _Entry) -> ssl.SSLContext:
    authority = cluster.read("certificate-authority")
    context = ssl.create_default_context(cadata=authority.decode("ascii", "replace") if authority else None)
    certificate, key = user.read("client-certificate"), user.read("client-key")
    if certificate:
        _load_certificate(context, certificate, key or b"")
    if cluster.fields.get("insecure-skip-tls-verify"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _load_certificate(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    """OpenSSL takes them from a file only, which nobody else may read and which is gone at once."""
    with tempfile.NamedTemporaryFile(prefix="kubechain-") as file:
        file.write(certificate + b"\n" + key)
        file.flush()
        # Without a password an encrypted key would be asked for on the terminal.
        context.load_cert_chain(file.name, password=_refuse_password)


def _refuse_password() -> str:
    raise _NotPlainError
