"""Downloads against a real HTTP server on this machine: resume, checksums, servers that give up."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from kubechain_cli.localcluster.errors import DownloadError
from kubechain_cli.localcluster.sources import release
from kubechain_cli.localcluster.sources.download import download, fetch_text, open_session
from kubechain_cli.localcluster.sources.pinned import Pins, Platform
from kubechain_cli.localcluster.sources.progress import Step

CONTENT = bytes(range(256)) * 4096
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def files_in(directory: Path) -> list[Path]:
    return list(directory.iterdir())


class Seen:
    """A Progress and a Step at once that keeps the last report."""

    def __init__(self) -> None:
        self.last: tuple[float, float | None] = (0, None)

    def note(self, text: str) -> None:
        return

    def step(self, title: str, *, size: bool = False) -> AbstractContextManager[Step]:
        return nullcontext(self)

    def advance(self, done: float, total: float | None, detail: str = "") -> None:
        self.last = (done, total)


class Server:
    """Serves CONTENT with byte ranges; ``cut`` ends the first so many answers early; ``ranges`` is what was asked."""

    def __init__(self) -> None:
        self.ranges: list[str | None] = []
        self.cut = 0
        self.with_ranges = True

    async def handle(self, request: web.Request) -> web.StreamResponse:
        asked = request.headers.get("Range")
        self.ranges.append(asked)
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.with_ranges else 0
        if start >= len(CONTENT):
            return web.Response(status=416)
        body = CONTENT[start:]
        response = web.StreamResponse(status=206 if start else 200, headers={"Content-Length": str(len(body))})
        await response.prepare(request)
        if self.cut:
            self.cut -= 1
            await response.write(body[: len(body) // 2])
            assert request.transport is not None
            request.transport.close()
            return response
        await response.write(body)
        return response


@pytest.fixture
async def server() -> AsyncIterator[tuple[Server, str]]:
    handler = Server()
    app = web.Application()
    app.router.add_get("/file", handler.handle)
    async with TestServer(app) as running:
        yield handler, str(running.make_url("/file"))


async def test_a_download_reports_its_progress(server: tuple[Server, str], tmp_path: Path) -> None:
    seen = Seen()
    async with open_session() as session:
        path = await download(session, server[1], tmp_path / "file", SHA256, seen)
    assert path.read_bytes() == CONTENT
    assert seen.last == (len(CONTENT), len(CONTENT))


async def test_a_part_is_continued_where_it_ended(server: tuple[Server, str], tmp_path: Path) -> None:
    (tmp_path / "file.part").write_bytes(CONTENT[:1000])
    async with open_session() as session:
        path = await download(session, server[1], tmp_path / "file", SHA256, Seen())
    assert server[0].ranges == ["bytes=1000-"]
    assert path.read_bytes() == CONTENT
    assert not (tmp_path / "file.part").exists()


async def test_a_connection_that_breaks_off_is_continued(server: tuple[Server, str], tmp_path: Path) -> None:
    server[0].cut = 2
    async with open_session() as session:
        path = await download(session, server[1], tmp_path / "file", SHA256, Seen())
    assert path.read_bytes() == CONTENT
    assert server[0].ranges[0] is None
    assert len(server[0].ranges) == 3


async def test_a_server_without_ranges_starts_again(server: tuple[Server, str], tmp_path: Path) -> None:
    server[0].with_ranges = False
    (tmp_path / "file.part").write_bytes(b"something old")
    async with open_session() as session:
        path = await download(session, server[1], tmp_path / "file", SHA256, Seen())
    assert path.read_bytes() == CONTENT


async def test_a_complete_part_only_needs_its_checksum(server: tuple[Server, str], tmp_path: Path) -> None:
    (tmp_path / "file.part").write_bytes(CONTENT)
    async with open_session() as session:
        path = await download(session, server[1], tmp_path / "file", SHA256, Seen())
    assert path.read_bytes() == CONTENT


async def test_a_wrong_checksum_leaves_nothing_behind(server: tuple[Server, str], tmp_path: Path) -> None:
    async with open_session() as session:
        with pytest.raises(DownloadError, match="checksum"):
            await download(session, server[1], tmp_path / "file", "0" * 64, Seen())
    assert files_in(tmp_path) == []


async def test_a_missing_file_is_said(server: tuple[Server, str]) -> None:
    async with open_session() as session:
        with pytest.raises(DownloadError, match="answered 404"):
            await fetch_text(session, server[1] + "-not-there")


async def test_an_unreachable_server_is_said() -> None:
    async with open_session() as session:
        with pytest.raises(DownloadError, match="cannot reach"):
            await fetch_text(session, "http://127.0.0.1:9/file")


def test_checksum_lists() -> None:
    sums = f"{'a' * 64}  etcd.zip\n{'B' * 64} *etcd.tar.gz\n"
    assert release.find_checksum(sums, "etcd.tar.gz") == "b" * 64
    with pytest.raises(DownloadError, match="does not list"):
        release.find_checksum(sums, "other")


def etcd_archive() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        info = tarfile.TarInfo("etcd-v3-linux-amd64/etcd")
        info.size = 4
        tar.addfile(info, io.BytesIO(b"etcd"))
    return buffer.getvalue()


async def test_a_whole_release(tmp_path: Path) -> None:
    archive = etcd_archive()
    files = {
        "/v3/SHA256SUMS": f"{hashlib.sha256(archive).hexdigest()}  etcd-v3-linux-amd64.tar.gz\n".encode(),
        "/v3/etcd-v3-linux-amd64.tar.gz": archive,
    }
    for name in ("kube-apiserver", "kube-controller-manager"):
        files[f"/v1/bin/linux/amd64/{name}"] = name.encode()
        files[f"/v1/bin/linux/amd64/{name}.sha256"] = hashlib.sha256(name.encode()).hexdigest().encode()

    async def handle(request: web.Request) -> web.Response:
        return web.Response(body=files[request.path])

    app = web.Application()
    app.router.add_get("/{path:.*}", handle)
    pins = Pins("\tk8s.io/kubernetes v1\n\tgo.etcd.io/etcd/server/v3 v3\n", "")
    async with TestServer(app) as running:
        origin = str(running.make_url("")).rstrip("/")
        origins = release.Origins(kubernetes=origin, etcd=origin)
        found = await release.download_all(pins, Platform("linux", "amd64"), tmp_path, Seen(), origins)
    assert {name: path.read_text() for name, path in found.items()} == {
        "etcd": "etcd",
        "kube-apiserver": "kube-apiserver",
        "kube-controller-manager": "kube-controller-manager",
    }


async def test_a_place_that_can_not_be_written_is_told(server: tuple[Server, str], tmp_path: Path) -> None:
    async with open_session() as session:
        with pytest.raises(DownloadError, match=r"gone/file\.part can not be written"):
            await download(session, server[1], tmp_path / "gone" / "file", SHA256, Seen())
