"""Installing KubeChain's CRDs, from the models themselves, and waiting until the API server serves them.

The local API server gets one server-side-apply PATCH per CRD over one connection, which takes milliseconds. A cluster
of the user's own may need any way of logging in that a kubeconfig can name, so there kubectl does it.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kubechain_cli.localcluster.errors import ClusterApiError
from kubechain_cli.localcluster.pki import Pki

if TYPE_CHECKING:
    import aiohttp

FIELD_MANAGER = "kubechain-cli"
ESTABLISHED_TIMEOUT = 30.0
_WAKE_ANNOTATION = "kubechain.humanlayer.dev/wake"
_PATH = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


def load_crds() -> list[dict[str, Any]]:
    """KubeChain's CustomResourceDefinitions. The import takes a while: call it in a thread."""
    from kubechain_common.crdgen import build_crds

    return list(build_crds().values())


async def install_crds(server: str, pki: Pki, identity: str, crds: list[dict[str, Any]]) -> None:
    """Apply the CRDs to the local API server and wait until all are established.

    Raises ClusterApiError when the API server refuses one or does not establish them in time.
    """
    import aiohttp

    context = ssl.create_default_context(cafile=str(pki.ca_cert))
    context.load_cert_chain(pki.client_cert(identity), pki.client_key(identity))
    connector = aiohttp.TCPConnector(ssl=context)
    try:
        async with aiohttp.ClientSession(server, connector=connector) as session, asyncio.timeout(ESTABLISHED_TIMEOUT):
            for crd in crds:
                if is_stuck(await _apply(session, crd)):
                    await _wake(session, crd["metadata"]["name"])
            await _wait_established(session, {crd["metadata"]["name"] for crd in crds})
    except TimeoutError as error:
        raise ClusterApiError(
            f"The API server did not establish the CRDs within {ESTABLISHED_TIMEOUT:.0f} s. See its log."
        ) from error
    except aiohttp.ClientError as error:
        raise ClusterApiError(f"The API server went away while the CRDs were applied: {error}") from error


async def _apply(session: aiohttp.ClientSession, crd: dict[str, Any]) -> dict[str, Any]:
    params = {"fieldManager": FIELD_MANAGER, "force": "true"}
    return await _patch(session, crd["metadata"]["name"], crd, "application/apply-patch+yaml", params)


async def _wake(session: aiohttp.ClientSession, name: str) -> None:
    for value in ("true", None):
        patch = {"metadata": {"annotations": {_WAKE_ANNOTATION: value}}}
        await _patch(session, name, patch, "application/merge-patch+json", {})


async def _patch(
    session: aiohttp.ClientSession, name: str, body: dict[str, Any], content_type: str, params: dict[str, str]
) -> dict[str, Any]:
    headers = {"Content-Type": content_type}
    async with session.patch(f"{_PATH}/{name}", params=params, data=json.dumps(body), headers=headers) as response:
        if response.status >= 400:
            raise ClusterApiError(f"The API server refused the CRD {name}: {await _message(response)}")
        answer: dict[str, Any] = await response.json()
        return answer


async def _wait_established(session: aiohttp.ClientSession, names: set[str]) -> None:
    waiting = set(names)
    # Without a resourceVersion a watch begins with what is there.
    async with session.get(_PATH, params={"watch": "1"}, read_bufsize=2**22) as response:
        if response.status >= 400:
            raise ClusterApiError(f"The API server refused to watch CRDs: {await _message(response)}")
        while waiting:
            line = await response.content.readline()
            if not line:
                raise ClusterApiError("The API server ended the watch of the CRDs. See its log.")
            crd = json.loads(line)["object"]
            if is_established(crd):
                waiting.discard(crd["metadata"]["name"])


def is_established(crd: dict[str, Any]) -> bool:
    """Whether the API server serves the resources of this CRD."""
    return _condition(crd, "Established") == "True"


def is_stuck(crd: dict[str, Any]) -> bool:
    """Whether the API server may have forgotten to establish this CRD.

    It does when it dies between accepting the names and establishing: after its restart nothing but an update of the
    CRD makes it look again (seen with 1.36.3).
    """
    return _condition(crd, "NamesAccepted") == "True" and not is_established(crd)


def _condition(crd: dict[str, Any], kind: str) -> str | None:
    # The API server writes null, not an empty list, before it has looked at the CRD.
    conditions = (crd.get("status") or {}).get("conditions") or []
    return next((condition["status"] for condition in conditions if condition["type"] == kind), None)


async def _message(response: aiohttp.ClientResponse) -> str:
    text = await response.text()
    try:
        return str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        return text[:500]


async def install_crds_with_kubectl(kubectl: Path, kubeconfig: Path, crds: list[dict[str, Any]]) -> None:
    """Apply the CRDs to the cluster that the kubeconfig names, and wait. Raises ClusterApiError."""
    manifest = json.dumps({"apiVersion": "v1", "kind": "List", "items": crds})
    apply = ("apply", "--server-side", "--force-conflicts", f"--field-manager={FIELD_MANAGER}", "-f", "-")
    await _kubectl(kubectl, kubeconfig, apply, manifest)
    names = [f"crd/{crd['metadata']['name']}" for crd in crds]
    wait = ("wait", "--for=condition=Established", f"--timeout={ESTABLISHED_TIMEOUT:.0f}s", *names)
    await _kubectl(kubectl, kubeconfig, wait)


async def _kubectl(kubectl: Path, kubeconfig: Path, arguments: tuple[str, ...], stdin: str = "") -> None:
    process = await asyncio.create_subprocess_exec(
        str(kubectl),
        f"--kubeconfig={kubeconfig}",
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, stderr = await process.communicate(stdin.encode())
    if process.returncode != 0:
        raise ClusterApiError(f"kubectl {arguments[0]} of the CRDs failed: {stderr.decode(errors='replace').strip()}")
