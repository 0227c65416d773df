"""How images are described, what they are refused for, and that their Dockerfiles differ in the service alone."""

from __future__ import annotations

import io
import json
import re
import signal
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

# importlib mode leaves sys.path alone, so the repository's root has to be on it for `scripts.images`.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts import engine as daemon
from scripts import locks
from scripts.images import base, build, contents, engine, network, sbom

ROOT = build.ROOT
OWN = ["kubechain-common", "kubechain-mcp-host"]
GOOD: dict[str, bytes] = {
    "./app/.venv/lib/python3.11/site-packages/kubechain_common-0.1.0.dist-info/METADATA": (
        b"Name: kubechain-common\nVersion: 0.1.0\nLicense-Expression: Apache-2.0\n\nText: of it\n"
    ),
    "app/.venv/lib/python3.11/site-packages/kubechain_mcp_host-0.1.0.dist-info/METADATA": (
        b"Name: kubechain-mcp-host\nVersion: 0.1.0\nLicense: a text\n  of many lines\n"
    ),
    "usr/local/lib/node_modules/npm/node_modules/@npmcli/fs/package.json": (
        b'{"name": "@npmcli/fs", "version": "5.0.0", "license": "ISC"}'
    ),
    "usr/local/lib/node_modules/npm/test/package.json": b"not one of a package",
    "var/lib/dpkg/status": (
        b"Package: tzdata\nStatus: install ok installed\nArchitecture: all\nVersion: 2025b-0+deb12u1\n\n"
        b"Package: gone\nStatus: deinstall ok config-files\nArchitecture: amd64\nVersion: 1\n"
    ),
    "usr/bin/ld.so": b"the loader, no linker",
    "usr/bin/assign": b"",
    "usr/share/doc/gcc": b"words, no program",
}


def pack(files: Mapping[str, bytes], modes: Mapping[str, int] | None = None) -> io.BytesIO:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), (modes or {}).get(name, 0o755)
            archive.addfile(member, io.BytesIO(content))
    stream.seek(0)
    return stream


def read(files: Mapping[str, bytes], user: str = "65532:65532", modes: Mapping[str, int] | None = None) -> list[str]:
    return contents.find_faults(contents.read_archive(pack(files, modes), {"User": user}), OWN)


def test_packages_are_found_by_what_they_say_of_themselves() -> None:
    found = contents.read_archive(pack(GOOD), {}).packages
    assert sorted(found) == [
        contents.Package("deb", "tzdata", "2025b-0+deb12u1", architecture="all"),
        contents.Package("npm", "@npmcli/fs", "5.0.0", "ISC"),
        contents.Package("pypi", "kubechain-common", "0.1.0", "Apache-2.0"),
        contents.Package("pypi", "kubechain-mcp-host", "0.1.0"),
    ]


def test_the_document_is_valid_and_the_same_for_the_same_image() -> None:
    read_again = [contents.read_archive(pack(GOOD), {}) for _ in range(2)]
    first, second = (json.loads(sbom.render_bom(sbom.build_bom("t", "1", "abc", one))) for one in read_again)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(first)) is None
    assert first["components"] == second["components"]
    assert first["serialNumber"] == second["serialNumber"]
    assert sorted(component["purl"] for component in first["components"]) == [
        "pkg:deb/debian/tzdata@2025b-0%2Bdeb12u1?arch=all",
        "pkg:npm/%40npmcli/fs@5.0.0",
        "pkg:pypi/kubechain-common@0.1.0",
        "pkg:pypi/kubechain-mcp-host@0.1.0",
    ]


def test_the_document_tells_of_which_contents_it_is(tmp_path: Path) -> None:
    path = tmp_path / "x.cdx.json"
    assert sbom.read_content_id(path) == ""
    sbom.write_bom(sbom.build_bom("t", "1", "abc", contents.Contents({})), path)
    assert sbom.read_content_id(path) == "abc"


def test_a_good_image_has_no_faults() -> None:
    assert read(GOOD) == []


@pytest.mark.parametrize("user", ["", "0", "0:0", "root", "root:65532"])
def test_an_image_that_runs_as_root_is_refused(user: str) -> None:
    assert read(GOOD, user) == ["it runs as root"]


@pytest.mark.parametrize(
    "program",
    [
        "usr/bin/gcc",
        "usr/bin/x86_64-linux-gnu-gcc-12",
        "usr/bin/c++",
        "usr/local/go/bin/go",
        "usr/bin/clang-16",
        "usr/bin/as",
        "usr/bin/ld.bfd",
        "app/.venv/bin/tcc",
        "./usr/bin/make",
        "usr/local/bin/rustc",
    ],
)
def test_an_image_with_a_compiler_is_refused(program: str) -> None:
    assert read({**GOOD, program: b""}) == [f"it holds a compiler: {program.removeprefix('./')}"]


def test_an_image_with_a_program_that_changes_the_user_is_refused() -> None:
    assert read({**GOOD, "usr/bin/su": b""}, modes={"usr/bin/su": 0o4755}) == [
        "it holds programs that change the user: usr/bin/su"
    ]


def test_an_image_with_another_service_in_it_is_refused() -> None:
    other = {"x/kubechain_cli-0.1.0.dist-info/METADATA": b"Name: kubechain-cli\nVersion: 0.1.0\n"}
    [fault] = read({**GOOD, **other})
    assert (
        fault
        == "it holds kubechain-cli, kubechain-common, kubechain-mcp-host, not kubechain-common, kubechain-mcp-host"
    )


def test_the_build_is_told_how_to_reach_the_index_and_nothing_else() -> None:
    told = network.build_settings(
        {
            "HTTPS_PROXY": "http://user:it's@proxy:1",
            "no_proxy": "localhost",
            "UV_DEFAULT_INDEX": "https://index/simple",
            "PIP_TRUSTED_HOST": "index",
            "UV_HTTP_TIMEOUT": "9",
            "ALL_PROXY": "",
            "OPENAI_API_KEY": "secret",
            "UV_PUBLISH_TOKEN": "secret",
            "PATH": "/bin",
        }
    )
    shell = subprocess.run(
        ["sh", "-c", f'{told}printf "%s|%s" "$HTTPS_PROXY" "$UV_DEFAULT_INDEX"'],
        capture_output=True,
        text=True,
        check=True,
        env={},
    )
    assert shell.stdout == "http://user:it's@proxy:1|https://index/simple"
    names = [line.split("=")[0] for line in told.splitlines()]
    assert names == ["HTTPS_PROXY", "PIP_TRUSTED_HOST", "UV_DEFAULT_INDEX", "UV_HTTP_TIMEOUT", "no_proxy"]


def test_what_the_build_is_told_is_gone_after_it(tmp_path: Path) -> None:
    certificates = tmp_path / "ca.crt"
    certificates.write_text("x", encoding="utf-8")
    with network.build_secrets({"HTTP_PROXY": "p", "SSL_CERT_FILE": str(certificates)}) as arguments:
        assert arguments[3] == f"id=certificates,src={certificates}"
        settings = Path(arguments[1].split("src=")[1])
        assert settings.read_text(encoding="utf-8") == "HTTP_PROXY=p\n"
        assert settings.parent.stat().st_mode & 0o077 == 0
    assert not settings.exists()


def test_certificates_too_many_for_a_secret_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "MOST_BYTES", 0)
    certificates = tmp_path / "ca.crt"
    certificates.write_text("x", encoding="utf-8")
    assert network.find_certificates({"SSL_CERT_FILE": str(certificates)}) is None


def test_the_dockerfiles_differ_in_nothing_but_the_service() -> None:
    """What mcp-host has besides is cut out first."""
    texts = set()
    for service in build.SERVICES:
        text = build.dockerfile_of(service).read_text(encoding="utf-8")
        text = re.sub(r"# uvx and npx.*?(?=FROM \$\{BASE\}\nCOPY deploy/images/service.sh)", "", text, flags=re.DOTALL)
        text = re.sub(r"COPY --from=launchers .*\n| && install -d -o .*", "", text)
        text = re.sub(r"HOME=\S+", "HOME=?", text)
        text = re.sub(r'image.description=".*"', "", text)
        texts.add(text.replace(service, "SERVICE"))
    assert len(texts) == 1


def test_every_service_has_an_image() -> None:
    assert sorted(build.SERVICES) == sorted(path.name for path in (ROOT / "services").iterdir())


def test_the_label_names_only_an_address_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter(["https://example.com/a/b.git", "/home/me/kubechain", "https://me:token@example.com/a", ""])
    monkeypatch.setattr(build, "read_git", lambda *_: next(answers))
    assert [build.read_source() for _ in range(4)] == ["https://example.com/a/b.git", "", "", ""]


def test_a_registry_comes_before_the_name() -> None:
    assert build.Plan("1").tag("mcp-host") == "kubechain/mcp-host:1"
    assert build.Plan("1", "registry.example/team/").tag("mcp-host") == "registry.example/team/kubechain/mcp-host:1"


def test_nats_keeps_the_version_of_its_own() -> None:
    version = build.read_nats_version()
    assert build.Plan("1").tag("nats") == build.Plan("2").tag("nats") == f"kubechain/nats:{version}"
    assert f"ARG VERSION={version}\n" in build.dockerfile_of("nats").read_text()


def test_without_a_registry_or_debootstrap_the_way_out_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(engine.EngineError, match=r"debootstrap; .*make images BASE="):
        base.make_archive(tmp_path / "base.tar")


def test_a_docker_command_that_can_not_build_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(folder: str, version: str) -> str:
        path = tmp_path / folder / "docker"
        path.parent.mkdir()
        path.write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo "Docker version {version}, build 1"\n')
        path.chmod(0o755)
        return str(path)

    new, old = write("new", "28.2.2"), write("old", "20.10.24+dfsg1")
    monkeypatch.setenv("PATH", f"{Path(new).parent}:{Path(old).parent}")
    assert engine.find_client.__wrapped__() == old
    monkeypatch.setenv("PATH", str(Path(new).parent))
    with pytest.raises(engine.EngineError, match="can not build: install its plug-in buildx"):
        engine.find_client.__wrapped__()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(engine.EngineError, match="no docker command on PATH"):
        engine.find_client.__wrapped__()


def test_the_number_of_a_dead_daemon_is_forgotten_only_when_another_program_has_it(tmp_path: Path) -> None:
    pid_file = tmp_path / "docker.pid"
    for comm, kept in (("dockerd", True), ("python3", False), (None, False)):
        pid_file.write_text("42")
        process = tmp_path / "proc" / "42"
        process.mkdir(parents=True, exist_ok=True)
        (process / "comm").unlink(missing_ok=True)
        if comm:
            (process / "comm").write_text(f"{comm}\n")
        daemon.forget_the_dead(pid_file, tmp_path / "proc")
        assert pid_file.exists() is kept


def test_a_daemon_ends_when_nobody_uses_it_any_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "lock_file", tmp_path.joinpath)
    started = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    with locks.hold(daemon.USING, shared=True), locks.hold(daemon.USING, shared=True):
        assert not daemon.end_if_unused(started)
        assert started.poll() is None
    assert daemon.end_if_unused(started)
    assert started.returncode == -signal.SIGTERM


def test_without_an_engine_the_command_runs_all_the_same_and_knows_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    engine.find_client.cache_clear()
    try:
        assert daemon.main([sys.executable, "-c", "import os; print(os.environ['KUBECHAIN_NO_ENGINE'])"]) == 0
    finally:
        engine.find_client.cache_clear()
    assert capfd.readouterr().out.strip() == "there is no docker command on PATH"
