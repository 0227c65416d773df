"""Makes what is secret when KubeChain is installed: ``python -m kubechain_common.runtime.bootstrap [--tls]``.

A password of NATS for each service, each in a Secret of its own, and all of them together for the server. With
``--tls`` a certificate for the server, too, and the authority that vouches for it, whose key nobody keeps. What exists
stays as it is, so running it again changes nothing, and deleting a Secret before makes a new one.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import sys
from collections.abc import Callable, Mapping, Sequence

from kubechain_common.kube.client import MERGE_PATCH, KubeClient
from kubechain_common.kube.errors import AlreadyExistsError, ConflictError, KubeError, NotFoundError
from kubechain_common.kube.paths import core_path
from kubechain_common.messages.nats_config import build_passwords_config
from kubechain_common.messages.permissions import USERS
from kubechain_common.runtime.settings import ServiceSettings
from kubechain_common.telemetry.logging import configure_logging, get_logger

NAME = "bootstrap"
PASSWORD = "password"
PASSWORDS = "passwords.conf"
USERS_SECRET, TLS_SECRET, CA_SECRET = "nats-users", "nats-tls", "nats-ca"
LABELS = {"app.kubernetes.io/part-of": "kubechain", "app.kubernetes.io/component": NAME}

_PASSWORD_BYTES = 32
_ATTEMPTS = 10

Data = Mapping[str, str]

log = get_logger(__name__)


def password_secret(service: str) -> str:
    """The Secret with a service's password."""
    return f"nats-{service}"


def decide_secrets(
    existing: Mapping[str, Data], new_password: Callable[[], str], new_certificate: Callable[[], Data] | None
) -> dict[str, dict[str, str]]:
    """What is to be written, by the name of the Secret: what is missing, and what does not fit together.

    ``new_certificate`` gives ``ca.crt``, ``tls.crt`` and ``tls.key``; without it there is no TLS. Pure.
    """
    passwords = {user: existing.get(password_secret(user), {}).get(PASSWORD, "") for user in USERS}
    missing = {user: new_password() for user, password in passwords.items() if not password}
    wanted = {password_secret(user): {PASSWORD: password} for user, password in missing.items()}
    everybodys = build_passwords_config(passwords | missing)
    if existing.get(USERS_SECRET, {}).get(PASSWORDS) != everybodys:
        wanted[USERS_SECRET] = {PASSWORDS: everybodys}
    if new_certificate is not None:
        wanted |= _decide_certificates(existing, new_certificate)
    return wanted


def _decide_certificates(
    existing: Mapping[str, Data], new_certificate: Callable[[], Data]
) -> dict[str, dict[str, str]]:
    certificate = existing.get(TLS_SECRET, {})
    wanted = {}
    if not all(certificate.get(key) for key in ("ca.crt", "tls.crt", "tls.key")):
        certificate = new_certificate()
        wanted[TLS_SECRET] = dict(certificate)
    if existing.get(CA_SECRET, {}).get("ca.crt") != certificate["ca.crt"]:
        wanted[CA_SECRET] = {"ca.crt": certificate["ca.crt"]}
    return wanted


async def bootstrap(kube: KubeClient, namespace: str, *, tls: bool) -> None:
    """Bring the Secrets into being. Raises KubeError."""
    names = [*map(password_secret, USERS), USERS_SECRET, *([TLS_SECRET, CA_SECRET] if tls else [])]
    for _ in range(_ATTEMPTS):
        found = {name: await _read(kube, namespace, name) for name in names}
        existing = {name: data for name, data in found.items() if data is not None}
        wanted = decide_secrets(existing, _new_password, (lambda: _new_certificate(namespace)) if tls else None)
        try:
            for name, data in wanted.items():
                await _write(kube, namespace, name, data, there=name in existing)
        except (AlreadyExistsError, NotFoundError, ConflictError):
            continue  # somebody else is at it: look again
        log.info("secrets are in place", made=sorted(wanted), kept=sorted(set(names) - set(wanted)))
        return
    raise ConflictError("Somebody else keeps changing the Secrets of NATS.")


async def _read(kube: KubeClient, namespace: str, name: str) -> dict[str, str] | None:
    try:
        return await kube.get_secret(namespace, name)
    except NotFoundError:
        return None


async def _write(kube: KubeClient, namespace: str, name: str, data: Data, *, there: bool) -> None:
    if there:
        path = core_path("secrets", namespace, name)
        await kube.request("PATCH", path, body={"stringData": data}, content_type=MERGE_PATCH)
        return
    body = {"metadata": {"name": name, "labels": LABELS}, "type": "Opaque", "stringData": data}
    await kube.request("POST", core_path("secrets", namespace), body=body)


def _new_password() -> str:
    return secrets.token_urlsafe(_PASSWORD_BYTES)


def _new_certificate(namespace: str) -> Data:
    # Only where TLS is wanted, and only in the image that this runs in, is there a library for it.
    from kubechain_common.runtime.certificates import build_server_certificate

    return build_server_certificate(server_names(namespace))


def server_names(namespace: str) -> tuple[str, ...]:
    """Under which names the servers are reached: the Service, each of them by itself, and through a port-forward."""
    endings = ("", f".{namespace}", f".{namespace}.svc", f".{namespace}.svc.cluster.local")
    return (*(f"nats{ending}" for ending in endings), *(f"*.nats-headless{ending}" for ending in endings), "localhost")


async def run(*, tls: bool) -> int:
    """Brings the Secrets into being; the exit code. It is 1 when the API server does not let us, and then the Job is
    tried again.
    """
    async with KubeClient.connect(f"kubechain-{NAME}") as kube:
        await kube.wait_until_ready()
        try:
            await bootstrap(kube, ServiceSettings().namespace, tls=tls)
        except KubeError as error:
            log.error("secrets can not be made", error=str(error))
            return 1
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Make the Secrets that KubeChain runs with.")
    parser.add_argument("--tls", action="store_true", help="also a certificate for NATS")
    arguments = parser.parse_args(argv)
    configure_logging(NAME, "INFO", "json")
    return asyncio.run(run(tls=arguments.tls))


if __name__ == "__main__":
    sys.exit(main())
