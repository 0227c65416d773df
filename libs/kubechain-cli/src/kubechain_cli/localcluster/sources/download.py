"""Downloads that go on where they stopped.

Bytes land in a ``.part`` file, which becomes the file once its checksum fits.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from kubechain_cli.localcluster.errors import DownloadError

if TYPE_CHECKING:
    import aiohttp

    from kubechain_cli.localcluster.sources.progress import Progress, Step

CONNECT_TIMEOUT = 5.0
READ_TIMEOUT = 30.0
ATTEMPTS = 4
_CHUNK = 1 << 18


def open_session() -> aiohttp.ClientSession:
    """A session that gives up early on a machine without internet and honours the usual proxy variables."""
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT, sock_read=READ_TIMEOUT)
    return aiohttp.ClientSession(timeout=timeout, trust_env=True)


async def fetch_text(session: aiohttp.ClientSession, url: str) -> str:
    """A small text. Raises DownloadError."""
    import aiohttp

    try:
        async with session.get(url) as response:
            if response.status != 200:
                raise DownloadError(f"{url} answered {response.status}")
            return await response.text()
    except (aiohttp.ClientError, TimeoutError) as error:
        raise DownloadError(f"cannot reach {url} ({_reason(error)})") from error


async def download(
    session: aiohttp.ClientSession, url: str, destination: Path, sha256: str, progress: Progress
) -> Path:
    """Download to ``destination``, resuming ``<destination>.part``, and return it.

    Raises DownloadError: after network trouble the part is kept for the next attempt, after a wrong checksum it is
    deleted.
    """
    if _digest(destination) == sha256:
        return destination
    part = destination.with_name(destination.name + ".part")
    with progress.step(f"Downloading {destination.name}", size=True) as step:
        await _fetch_part(session, url, part, step)
    actual = _digest(part)
    if actual != sha256:
        part.unlink()
        raise DownloadError(f"{url} has the checksum {actual}, {sha256} was expected; it was thrown away")
    part.rename(destination)
    return destination


async def _fetch_part(session: aiohttp.ClientSession, url: str, part: Path, step: Step) -> None:
    import aiohttp

    for attempt in range(1, ATTEMPTS + 1):
        before = _size(part)
        try:
            await _append(session, url, part, step)
        except (aiohttp.ClientError, TimeoutError) as error:
            # An attempt that brought nothing says that the next one would not either.
            if attempt == ATTEMPTS or _size(part) == before:
                raise DownloadError(
                    f"the download of {url} broke off ({_reason(error)}); run it again to go on"
                ) from error
        except OSError as error:
            raise DownloadError(f"{part} can not be written ({error})") from error
        else:
            return


async def _append(session: aiohttp.ClientSession, url: str, part: Path, step: Step) -> None:
    offset = _size(part)
    headers = {"Range": f"bytes={offset}-"} if offset else {}
    # A compressed transfer could not be resumed at a byte of the file.
    headers["Accept-Encoding"] = "identity"
    async with session.get(url, headers=headers) as response:
        if response.status == 416:
            return
        if response.status not in (200, 206):
            raise DownloadError(f"{url} answered {response.status}")
        if response.status == 200:
            offset = 0
        length = response.content_length
        total = offset + length if length is not None else None
        with part.open("ab" if offset else "wb") as file:
            async for chunk in response.content.iter_chunked(_CHUNK):
                file.write(chunk)
                offset += len(chunk)
                step.advance(offset, total)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _digest(path: Path) -> str | None:
    if not path.exists():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _reason(error: BaseException) -> str:
    return str(error) or "no answer in time"
