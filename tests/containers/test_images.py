"""What is in the images, and what they say of themselves."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping

import pytest
from scripts.images import engine
from scripts.images.build import NAMES, ROOT, Plan, read_git, read_version
from scripts.images.described import describe_image
from scripts.images.network import build_settings, find_certificates
from tests.containers.box import Box
from tests.containers.place import Place

pytestmark = pytest.mark.containers


@pytest.mark.parametrize("name", NAMES)
def test_an_image_is_what_it_must_be_and_says_what_it_is(images: Mapping[str, str], name: str) -> None:
    version = Plan(read_version()).version_of(name)
    document = json.loads((ROOT / describe_image(name, images[name], version)).read_text(encoding="utf-8"))
    assert document["components"]

    config = engine.need_image(images[name])["Config"]
    assert config["User"] == "65532:65532"
    labels = config["Labels"]
    prefix = "org.opencontainers.image"
    assert labels[f"{prefix}.title"] == f"kubechain-{name}"
    assert labels[f"{prefix}.version"] == version
    assert labels[f"{prefix}.revision"] == read_git("rev-parse", "HEAD")
    assert labels[f"{prefix}.licenses"] == "Apache-2.0"
    assert labels[f"{prefix}.description"]


@pytest.mark.parametrize("name", NAMES)
def test_an_image_keeps_nothing_of_the_machine_that_built_it(images: Mapping[str, str], name: str) -> None:
    history = engine.run("history", "--no-trunc", "--format", "{{.CreatedBy}}", images[name])
    environment = "\n".join(engine.need_image(images[name])["Config"]["Env"] or [])
    certificates = find_certificates(os.environ)
    for told in (*build_settings(os.environ).splitlines(), *([str(certificates)] if certificates else []), str(ROOT)):
        assert told not in history
        assert told not in environment


def test_servers_of_npm_and_pypi_can_be_started_on_a_read_only_root(place: Place, images: Mapping[str, str]) -> None:
    home = "/var/lib/kubechain/mcp"
    with Box(place, "launchers", images["mcp-host"], entrypoint=["sleep", "300"], volumes=(home,)) as box:
        for program in ("node", "npm", "npx", "uv", "uvx"):
            code, said = box.run(program, "--version")
            assert code == 0, said
        code, said = box.run("npx", "--offline", "--yes", "left-pad-that-is-not-there")
        assert code != 0
        assert "ENOTCACHED" in said, said
        assert box.run("sh", "-c", "uv venv --quiet $HOME/x && $HOME/x/bin/python -c 'print(1)'") == (0, "1")
