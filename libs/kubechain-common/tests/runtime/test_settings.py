"""What a service takes from its environment."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from kubechain_common.messaging.access import BusAccess
from kubechain_common.runtime import ServiceSettings


def test_defaults_fit_a_local_run(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NATS_URL", "NAMESPACE", "POD_NAME", "HTTP_PORT", "LOG_LEVEL", "LOG_FORMAT", "WATCH_NAMESPACE"):
        monkeypatch.delenv(f"KUBECHAIN_{name}", raising=False)
    settings = ServiceSettings()
    assert settings.nats_url == "nats://127.0.0.1:4222"
    assert (settings.watch_namespace, settings.namespace) == ("", "default")
    assert settings.drain_seconds == 20


def test_variables_override(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECHAIN_HTTP_PORT", "0")
    monkeypatch.setenv("KUBECHAIN_LOG_LEVEL", "debug")
    monkeypatch.setenv("KUBECHAIN_POD_NAME", "llm-gateway-0")
    settings = ServiceSettings()
    assert (settings.http_port, settings.log_level) == (0, "DEBUG")
    assert settings.identity() == "llm-gateway-0"


def test_an_empty_variable_is_an_unset_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECHAIN_LOG_LEVEL", "")
    assert ServiceSettings().log_level == "INFO"


def test_without_a_pod_every_process_is_somebody_else() -> None:
    settings = ServiceSettings(pod_name="")
    assert settings.identity() != settings.identity()


@pytest.mark.parametrize(("name", "value"), [("HTTP_PORT", "99999"), ("LOG_FORMAT", "xml"), ("DRAIN_SECONDS", "0")])
def test_nonsense_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"KUBECHAIN_{name}", value)
    with pytest.raises(ValidationError):
        ServiceSettings()


def test_a_password_in_the_url_is_not_shown() -> None:
    assert "hunter2" not in repr(ServiceSettings(nats_url="nats://user:hunter2@nats:4222"))


@pytest.mark.parametrize("name", ["NATS_USER", "NATS_PASSWORD_FILE"])
def test_a_user_of_nats_has_a_password(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(f"KUBECHAIN_{name}", "x")
    with pytest.raises(ValidationError, match="KUBECHAIN_NATS_USER and KUBECHAIN_NATS_PASSWORD_FILE go together"):
        ServiceSettings()


def test_how_to_sign_in_to_nats(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"USER": "mcp-host", "PASSWORD_FILE": "/p", "CA_FILE": "/ca.crt", "REPLICAS": "3"}
    for name, value in given.items():
        monkeypatch.setenv(f"KUBECHAIN_NATS_{name}", value)
    assert ServiceSettings().bus_access() == BusAccess("mcp-host", Path("/p"), Path("/ca.crt"), 3)
