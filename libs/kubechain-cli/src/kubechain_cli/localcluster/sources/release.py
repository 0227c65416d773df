"""The official releases: kube-apiserver and kube-controller-manager from dl.k8s.io, etcd from its GitHub releases.

Every file is checked against the SHA-256 that the project publishes beside it. The Kubernetes project publishes its
server binaries for Linux only.
"""

from __future__ import annotations

import asyncio
import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kubechain_cli.localcluster.errors import BinaryUnavailableError, DownloadError
from kubechain_cli.localcluster.sources.cache import BinaryCache
from kubechain_cli.localcluster.sources.download import download as download_file
from kubechain_cli.localcluster.sources.download import fetch_text, open_session
from kubechain_cli.localcluster.sources.pinned import CONTROL_PLANE, Pins, Platform

if TYPE_CHECKING:
    import aiohttp

    from kubechain_cli.localcluster.sources.progress import Progress


@dataclass(frozen=True)
class Origins:
    """Base addresses of the releases."""

    kubernetes: str = "https://dl.k8s.io/release"
    etcd: str = "https://github.com/etcd-io/etcd/releases/download"


def download(
    pins: Pins, target: Platform, cache: BinaryCache, progress: Progress, origins: Origins | None = None
) -> dict[str, Path]:
    """Download the three binaries into the cache's partial folder. Raises BinaryUnavailableError."""
    if target.os != "linux":
        raise BinaryUnavailableError(f"Kubernetes publishes no server binaries for {target}")
    cache.partial.mkdir(parents=True, exist_ok=True)
    return asyncio.run(download_all(pins, target, cache.partial, progress, origins or Origins()))


async def download_all(
    pins: Pins, target: Platform, directory: Path, progress: Progress, origins: Origins
) -> dict[str, Path]:
    """The three binaries by name, each checked. Raises DownloadError; what arrived stays in ``directory``."""
    async with open_session() as session:
        found: dict[str, Path] = {}
        for name in CONTROL_PLANE:
            if name == "etcd":
                found[name] = await _download_etcd(session, pins.etcd, target, directory, progress, origins.etcd)
            else:
                url = f"{origins.kubernetes}/{pins.kubernetes}/bin/{target}/{name}"
                sha256 = _first_word(await fetch_text(session, f"{url}.sha256"), url)
                found[name] = await download_file(session, url, directory / name, sha256, progress)
        return found


async def _download_etcd(
    session: aiohttp.ClientSession, version: str, target: Platform, directory: Path, progress: Progress, origin: str
) -> Path:
    stem = f"etcd-{version}-{target.os}-{target.arch}"
    archive_name = f"{stem}.tar.gz"
    sums = await fetch_text(session, f"{origin}/{version}/SHA256SUMS")
    sha256 = find_checksum(sums, archive_name)
    url = f"{origin}/{version}/{archive_name}"
    archive = await download_file(session, url, directory / archive_name, sha256, progress)
    binary = directory / "etcd"
    with tarfile.open(archive) as tar:
        source = tar.extractfile(f"{stem}/etcd")
        if source is None:
            raise DownloadError(f"{url} holds no etcd")
        with source, binary.open("wb") as file:
            shutil.copyfileobj(source, file)
    archive.unlink()
    return binary


def find_checksum(sums: str, name: str) -> str:
    """The SHA-256 of one file in a SHA256SUMS text. Raises DownloadError when it is not listed."""
    for line in sums.splitlines():
        words = line.split()
        if len(words) == 2 and words[1].lstrip("*") == name:
            return words[0].lower()
    raise DownloadError(f"SHA256SUMS of the release does not list {name}")


def _first_word(text: str, url: str) -> str:
    words = text.split()
    if not words or len(words[0]) != 64:
        raise DownloadError(f"{url}.sha256 holds no SHA-256")
    return words[0].lower()
