"""Environment, Secrets in specs, scrubbing, and sentences about failures."""

from __future__ import annotations

import httpx2
import pytest
from mcp import MCPError

from kubechain_common.testing.builders import build_mcp_server
from kubechain_mcp_host.connections.failure import describe_failure
from kubechain_mcp_host.errors import ConnectFailedError, InvalidSpecError, SecretMissingError
from kubechain_mcp_host.scrubber import Scrubber
from kubechain_mcp_host.spec.connection_spec import ConnectionSpec, resolve_connection, secret_names
from kubechain_mcp_host.stdio.environment import (
    DEFAULT_PASSTHROUGH,
    build_base_environment,
    select_passthrough,
    split_list,
)

NONE: dict[str, dict[str, str]] = {}
KEYLESS: dict[str, dict[str, str]] = {"s": {}}
SECRETS = {"s": {"k": "hunter2\n"}}
STDIO = ConnectionSpec("stdio", "uvx")
HTTP = ConnectionSpec("http", url="https://user:pw@mcp.example.com/mcp?key=abc")


def test_passthrough_takes_what_package_runners_need_and_nothing_of_ours() -> None:
    wanted = {
        "HTTPS_PROXY": "p", "https_proxy": "p", "no_proxy": "n", "SSL_CERT_FILE": "f", "UV_INDEX_URL": "u",
        "PIP_INDEX_URL": "i", "npm_config_registry": "r", "NPM_CONFIG_REGISTRY": "r", "LC_ALL": "C", "LANG": "C",
    }  # fmt: skip
    ours = {"KUBECONFIG": "k", "KUBECHAIN_NATS_URL": "n", "OTEL_EXPORTER_OTLP_HEADERS": "h", "OPENAI_API_KEY": "s"}
    assert select_passthrough({**wanted, **ours}, DEFAULT_PASSTHROUGH) == wanted
    assert select_passthrough({**wanted, **ours}, ["*"]) == {**wanted, "OPENAI_API_KEY": "s"}


def test_patterns_are_a_comma_separated_list() -> None:
    assert split_list(" A_*, B ,,") == ("A_*", "B")


def test_path_ends_with_our_own_folder() -> None:
    path = build_base_environment({"PATH": "/bin"}, ())["PATH"]
    assert path.startswith("/bin:")
    assert build_base_environment({"PATH": path}, ())["PATH"] == path


def test_resolves_values_and_secrets() -> None:
    server = build_mcp_server(
        env=[
            {"name": "A", "value": "1"},
            {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
        ]
    )
    assert secret_names(server) == {"s"}
    spec = resolve_connection(server, SECRETS.get)
    assert spec.env == (("A", "1"), ("B", "hunter2"))
    assert spec.secret_values == {"hunter2"}
    assert "hunter2" not in repr(spec)


def test_what_is_missing_is_named() -> None:
    server = build_mcp_server(env=[{"name": "B", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}])
    with pytest.raises(SecretMissingError, match='Secret "s" was not found'):
        resolve_connection(server, NONE.get)
    with pytest.raises(SecretMissingError, match='Secret "s" has no key "k"'):
        resolve_connection(server, KEYLESS.get)
    with pytest.raises(InvalidSpecError, match="command is required"):
        resolve_connection(build_mcp_server(command=None), NONE.get)
    remote = build_mcp_server(transport="http", command=None, args=None)
    with pytest.raises(InvalidSpecError, match="url is required"):
        resolve_connection(remote, NONE.get)


@pytest.mark.parametrize("value", ["a\nb", "tök"])
def test_headers_that_http_can_not_carry(value: str) -> None:
    server = build_mcp_server(transport="http", url="http://x", headers=[{"name": "X", "value": value}])
    with pytest.raises(InvalidSpecError) as caught:
        resolve_connection(server, NONE.get)
    assert value not in str(caught.value)


def test_scrubbing() -> None:
    scrubber = Scrubber(["Bearer tok/en-1234", "true", "abc"])
    assert scrubber.scrub("got Bearer tok/en-1234, tok/en-1234, tok%2Fen-1234") == "got ***, ***, ***"
    assert scrubber.scrub("is true, abc") == "is ***, abc"
    assert scrubber.scrub("via http://me:pw@proxy:1/x") == "via http://***@proxy:1/x"
    assert scrubber.scrub_result("true tok/en-1234 http://me:pw@x") == "true *** http://me:pw@x"


@pytest.mark.parametrize(
    ("error", "spec", "status", "sentence"),
    [
        (
            MCPError(-32000, "Connection closed"), STDIO, None,
            "the server process ended, or closed its output, before it answered.",
        ),
        (MCPError(-32602, "bad version"), STDIO, None, "the server refused the MCP handshake: bad version."),
        (PermissionError(13, "Permission denied"), STDIO, None, '"uvx" could not be started: Permission denied.'),
        (ConnectFailedError("it is what it is."), STDIO, None, "it is what it is."),
        (httpx2.ConnectError("refused"), HTTP, None, "https://mcp.example.com/mcp can not be reached: refused."),
        (httpx2.ReadTimeout("slow"), HTTP, None, "https://mcp.example.com/mcp did not answer in time."),
        (
            MCPError(-32603, "Server returned an error response"), HTTP, 401,
            "https://mcp.example.com/mcp answered HTTP 401 (Unauthorized): "
            "check spec.headers and the Secrets that they refer to.",
        ),
        (MCPError(-32603, "x"), HTTP, 599, "https://mcp.example.com/mcp answered HTTP 599."),
        (MCPError(-32603, "x"), HTTP, 200, "https://mcp.example.com/mcp refused the MCP handshake: x."),
        (ValueError("odd"), HTTP, 200, "https://mcp.example.com/mcp does not speak MCP as expected (ValueError: odd.)"),
    ],
)  # fmt: skip
def test_failures_in_words(error: Exception, spec: ConnectionSpec, status: int | None, sentence: str) -> None:
    nested = ExceptionGroup("outer", [ExceptionGroup("inner", [error])])
    assert describe_failure(nested, spec, http_status=status) == sentence
