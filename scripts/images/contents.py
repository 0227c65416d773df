"""What is in an image: read from the engine's export of it, without running it."""

from __future__ import annotations

import json
import re
import subprocess
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from email.parser import HeaderParser
from typing import IO, Any, Literal

from scripts.images import engine

Ecosystem = Literal["pypi", "deb", "npm"]

_METADATA = re.compile(r"(^|/)[^/]+\.dist-info/METADATA$")
_PACKAGE_JSON = re.compile(r"(^|/)node_modules/(@[^/]+/)?[^/]+/package\.json$")
_DEBIAN_STATUS = "var/lib/dpkg/status"
_PROGRAM_FOLDER = re.compile(r"(^|/)s?bin/[^/]+$")
_COMPILER = re.compile(
    r"(?:[\w.]+-)*(?:gcc|g\+\+|cc|c\+\+|c89|c99|clang|clang\+\+|tcc|gfortran|as|ld|ld\.(?:bfd|gold|lld)|make|cmake|rustc|cargo|go|javac)"
    r"(?:-[\d.]+)?"
)
_SET_ID_BITS = 0o6000


@dataclass(frozen=True, order=True)
class Package:
    """One thing that somebody else published and that is in the image."""

    ecosystem: Ecosystem
    name: str
    version: str
    licence: str = ""
    """As its metadata says it; empty when it does not."""
    architecture: str = ""


@dataclass
class Contents:
    """An image's settings, packages and files that matter."""

    config: Mapping[str, Any]
    packages: set[Package] = field(default_factory=set)
    programs: list[str] = field(default_factory=list)
    set_id: list[str] = field(default_factory=list)
    """Files that make a process somebody else."""


def read_contents(tag: str) -> Contents:
    """Raises EngineError."""
    image = engine.need_image(tag)
    container = engine.run("create", tag).strip()
    try:
        with subprocess.Popen([engine.find_client(), "export", container], stdout=subprocess.PIPE) as export:
            assert export.stdout is not None
            return read_archive(export.stdout, image["Config"])
    finally:
        engine.run("rm", "--force", container)


def read_archive(stream: IO[bytes], config: Mapping[str, Any]) -> Contents:
    """From a tar stream of the image's root."""
    contents = Contents(config)
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for member in archive:
            name = member.name.removeprefix("./")
            if _PROGRAM_FOLDER.search(name) and not member.isdir():
                contents.programs.append(name)
            if not member.isfile():
                continue
            if member.mode & _SET_ID_BITS:
                contents.set_id.append(name)
            contents.packages.update(read_packages(name, archive, member))
    return contents


def read_packages(name: str, archive: tarfile.TarFile, member: tarfile.TarInfo) -> Iterable[Package]:
    """The packages that a file of this name tells of."""
    if not (name == _DEBIAN_STATUS or _METADATA.search(name) or _PACKAGE_JSON.search(name)):
        return ()
    file = archive.extractfile(member)
    assert file is not None
    text = file.read().decode("utf-8", "replace")
    if name == _DEBIAN_STATUS:
        return parse_debian_status(text)
    return parse_metadata(text) if name.endswith("METADATA") else parse_package_json(text)


def parse_debian_status(text: str) -> list[Package]:
    paragraphs = (HeaderParser().parsestr(paragraph) for paragraph in text.split("\n\n") if paragraph.strip())
    installed = (p for p in paragraphs if p.get("Status", "").endswith(" installed"))
    return [Package("deb", p["Package"], p["Version"], architecture=p["Architecture"]) for p in installed]


def parse_metadata(text: str) -> list[Package]:
    found = HeaderParser().parsestr(text)
    licence = found.get("License-Expression") or found.get("License") or ""
    # Some have the whole text here.
    return [Package("pypi", found["Name"], found["Version"], licence if "\n" not in licence else "")]


def parse_package_json(text: str) -> list[Package]:
    found = json.loads(text)
    licence = found.get("license", "")
    return [Package("npm", found["name"], found["version"], licence if isinstance(licence, str) else "")]


def find_faults(contents: Contents, own: Sequence[str]) -> list[str]:
    """What an image of ours must not be, in sentences. ``own``: the members of the workspace that belong in it."""
    faults = []
    user = str(contents.config.get("User", ""))
    if user.split(":")[0] in ("", "0", "root"):
        faults.append("it runs as root")
    if compilers := [name for name in contents.programs if _COMPILER.fullmatch(name.rsplit("/", 1)[1])]:
        faults.append(f"it holds a compiler: {', '.join(compilers)}")
    if contents.set_id:
        faults.append(f"it holds programs that change the user: {', '.join(contents.set_id)}")
    members = {p.name for p in contents.packages if p.name.startswith("kubechain-")}
    if members != set(own):
        faults.append(f"it holds {', '.join(sorted(members)) or 'no member'}, not {', '.join(own)}")
    return faults
