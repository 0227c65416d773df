"""Installing KubeChain's CRDs, from the models themselves, and waiting until the API server serves them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kubechain_cli.localcluster.cluster_api import (
    APPLY,
    apply,
    local_api,
    patch,
    read_message,
    run_kubectl,
    to_list,
)
from kubechain_cli.localcluster.errors import ClusterApiError
from kubechain_cli.localcluster.pki import Pki
from kubechain_cli.localcluster.tokens import Identity

if TYPE_CHECKING:
    import aiohttp

ESTABLISHED_TIMEOUT = 30.0
_WAKE_ANNOTATION = "kubechain.humanlayer.dev/wake"
_PATH = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


def load_crds() -> list[dict[str, Any]]:
    """KubeChain's CustomResourceDefinitions. The import takes a while: call it in a thread."""
    from kubechain_common.crdgen import build_crds

    return list(build_crds().values())


async def install_crds(server: str, pki: Pki, identity: Identity, crds: list[dict[str, Any]]) -> None:
    """Apply the CRDs to the local API server and wait until all are established.

    Raises ClusterApiError when the API server refuses one or does not establish them in time.
    """
    try:
        async with local_api(server, pki, identity) as session, asyncio.timeout(ESTABLISHED_TIMEOUT):
            for crd in crds:
                path = f"{_PATH}/{crd['metadata']['name']}"
                if is_stuck(await apply(session, path, crd)):
                    await _wake(session, path)
            await _wait_established(session, {crd["metadata"]["name"] for crd in crds})
    except TimeoutError as error:
        raise ClusterApiError(
            f"The API server did not establish the CRDs within {ESTABLISHED_TIMEOUT:.0f} s. See its log."
        ) from error


async def _wake(session: aiohttp.ClientSession, path: str) -> None:
    for value in ("true", None):
        body = {"metadata": {"annotations": {_WAKE_ANNOTATION: value}}}
        await patch(session, path, body, "application/merge-patch+json", {})


async def _wait_established(session: aiohttp.ClientSession, names: set[str]) -> None:
    waiting = set(names)
    # Without a resourceVersion a watch begins with what is there.
    async with session.get(_PATH, params={"watch": "1"}, read_bufsize=2**22) as response:
        if response.status >= 400:
            raise ClusterApiError(f"The API server refused to watch CRDs: {await read_message(response)}")
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


async def install_crds_with_kubectl(kubectl: Path, kubeconfig: Path, crds: list[dict[str, Any]]) -> None:
    """Apply the CRDs to the cluster that the kubeconfig names, and wait. Raises ClusterApiError."""
    await run_kubectl(kubectl, kubeconfig, APPLY, to_list(crds))
    names = [f"crd/{crd['metadata']['name']}" for crd in crds]
    wait = ("wait", "--for=condition=Established", f"--timeout={ESTABLISHED_TIMEOUT:.0f}s", *names)
    await run_kubectl(kubectl, kubeconfig, wait)
