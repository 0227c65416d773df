"""Applying objects while a cluster comes up, before any service runs.

The local API server gets one server-side-apply PATCH per object over one connection, which takes milliseconds. A
cluster of the user's own may need any way of logging in that a kubeconfig can name, so there kubectl does it.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from kubechain_cli.localcluster.errors import ClusterApiError
from kubechain_cli.localcluster.pki import Pki
from kubechain_cli.localcluster.tokens import Identity, read_token

if TYPE_CHECKING:
    import aiohttp

Object = dict[str, Any]

FIELD_MANAGER = "kubechain-cli"
APPLY = ("apply", "--server-side", "--force-conflicts", f"--field-manager={FIELD_MANAGER}", "-f", "-")


@asynccontextmanager
async def local_api(server: str, pki: Pki, identity: Identity) -> AsyncIterator[aiohttp.ClientSession]:
    """A session with the local API server. Raises ClusterApiError when it goes away meanwhile."""
    import aiohttp

    context = ssl.create_default_context(cafile=str(pki.ca_cert))
    headers = {"Authorization": f"Bearer {read_token(pki.tokens, identity)}"}
    connector = aiohttp.TCPConnector(ssl=context)
    try:
        async with aiohttp.ClientSession(server, connector=connector, headers=headers) as session:
            yield session
    except aiohttp.ClientError as error:
        raise ClusterApiError(f"The API server went away while it was being set up: {error}") from error


async def apply(session: aiohttp.ClientSession, path: str, obj: Object) -> Object:
    """Server-side apply of one object to its path. Raises ClusterApiError."""
    params = {"fieldManager": FIELD_MANAGER, "force": "true"}
    return await patch(session, path, obj, "application/apply-patch+yaml", params)


async def patch(
    session: aiohttp.ClientSession, path: str, body: Object, content_type: str, params: dict[str, str]
) -> Object:
    """One PATCH. Raises ClusterApiError."""
    headers = {"Content-Type": content_type}
    async with session.patch(path, params=params, data=json.dumps(body), headers=headers) as response:
        if response.status >= 400:
            raise ClusterApiError(f"The API server refused {path}: {await read_message(response)}")
        answer: Object = await response.json()
        return answer


async def read_message(response: aiohttp.ClientResponse) -> str:
    """What the API server has to say about a refusal."""
    text = await response.text()
    try:
        return str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        return text[:500]


class Said(NamedTuple):
    """How kubectl ended: its answer, or its words about why there is none.

    Warnings are on the stream of those words, its own and those of a plugin that gets credentials.
    """

    good: bool
    text: str


async def try_kubectl(kubectl: Path, kubeconfig: Path, arguments: Sequence[str], stdin: str = "") -> Said:
    """One command of kubectl."""
    process = await asyncio.create_subprocess_exec(
        str(kubectl),
        f"--kubeconfig={kubeconfig}",
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate(stdin.encode())
    good = process.returncode == 0
    return Said(good, (output if good else errors or output).decode(errors="replace").strip())


async def run_kubectl(kubectl: Path, kubeconfig: Path, arguments: Sequence[str], stdin: str = "") -> None:
    """Runs kubectl. Raises ClusterApiError with its own words when it fails."""
    good, text = await try_kubectl(kubectl, kubeconfig, arguments, stdin)
    if not good:
        raise ClusterApiError(f"kubectl {arguments[0]} failed: {text}")


def to_list(objects: Sequence[Object]) -> str:
    """The objects as one manifest for kubectl's standard input."""
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
