"""The walk: what is applied is valid, what is typed is safe, and the choices are told."""

from __future__ import annotations

import itertools

import pytest
import yaml

from kubechain_cli.demo.backend import (
    ANTHROPIC,
    OPENAI,
    SCRIPTED,
    SCRIPTED_KEY,
    Backend,
    Choice,
    MissingKeyError,
    choose_backend,
    explain_backend,
)
from kubechain_cli.demo.walk import Command, Surroundings, build_stages
from kubechain_cli.demo.walker import render_summary
from kubechain_common.api.v1alpha1 import ALL_KINDS, Agent

KEY = "sk-very-secret"
LOCAL = "http://127.0.0.1:8080/api/people/1"
KINDS = {kind.crd.kind: kind for kind in ALL_KINDS}


def walk(backend: Backend = SCRIPTED, *, local: bool = True) -> list[Command]:
    base_url = "http://127.0.0.1:9/v1" if backend.scripted else None
    where = Surroundings(backend, base_url, LOCAL if local else "https://swapi.dev/api/people/1", local)
    return [command for stage in build_stages(where, KEY) for command in stage.commands]


def applied(commands: list[Command]) -> list[dict[str, object]]:
    return [yaml.safe_load(command.stdin) for command in commands if command.args[0] == "apply"]


@pytest.mark.parametrize(("backend", "local"), list(itertools.product((OPENAI, ANTHROPIC, SCRIPTED), (True, False))))
def test_everything_that_is_applied_is_valid_and_shown(backend: Backend, local: bool) -> None:
    commands = walk(backend, local=local)
    objects = applied(commands)
    assert [item["kind"] for item in objects] == [
        *("LLM", "Agent", "Task", "MCPServer", "Agent", "Task"),
        *("ContactChannel", "MCPServer", "Task"),
    ]
    for item in objects:
        parsed = KINDS[str(item["kind"])].model_validate(item)
        spec = parsed.to_wire()["spec"]
        assert {key: spec[key] for key in item["spec"]} == item["spec"]  # type: ignore[attr-defined]
    assert all(command.stdin in command.shown for command in commands if command.args[0] == "apply")


def test_the_agent_is_updated_in_place() -> None:
    before, after = [Agent.model_validate(item) for item in applied(walk()) if item["kind"] == "Agent"]
    assert before.name == after.name
    assert before.spec.mcp_servers == []
    assert [server.name for server in after.spec.mcp_servers] == ["fetch"]


def test_the_key_is_neither_shown_nor_in_the_arguments_of_a_process() -> None:
    for command in walk(OPENAI):
        assert KEY not in command.shown
        assert not any(KEY in argument for argument in command.args)
    assert [command.stdin for command in walk(OPENAI)].count(KEY) == 1


def test_every_wait_is_bounded_and_can_be_explained() -> None:
    waits = [command for command in walk() if command.args[0] == "wait"]
    assert len(waits) == 9
    for command in waits:
        assert command.about
        assert command.service
        assert any(argument.startswith("--timeout=") for argument in command.args)


def test_the_demo_answers_itself_through_the_command() -> None:
    commands = walk()
    shown = [command.shown for command in commands]
    approval = next(i for i, text in enumerate(shown) if text.startswith("kubechain approve"))
    assert "kubechain inbox" in shown[:approval]
    (awaited,) = [command for command in commands if command.until]
    assert awaited.until == "AwaitingHumanApproval"
    assert shown.index(awaited.shown) < approval
    assert "task/approved-fetch-task" in shown[approval + 1]


@pytest.mark.parametrize("local", [True, False])
def test_private_addresses_are_allowed_only_for_the_local_page(local: bool) -> None:
    shown = "\n".join(command.shown for command in walk(local=local))
    assert ("--allow-private-ips" in shown) is local
    assert ("https://swapi.dev" in shown) is not local


@pytest.mark.parametrize(
    ("choice", "env", "backend"),
    [
        ("auto", {}, SCRIPTED),
        ("auto", {"OPENAI_API_KEY": ""}, SCRIPTED),
        ("auto", {"OPENAI_API_KEY": "k", "ANTHROPIC_API_KEY": "k"}, OPENAI),
        ("auto", {"ANTHROPIC_API_KEY": "k"}, ANTHROPIC),
        ("anthropic", {"OPENAI_API_KEY": "k", "ANTHROPIC_API_KEY": "k"}, ANTHROPIC),
        ("scripted", {"OPENAI_API_KEY": "k"}, SCRIPTED),
    ],
)
def test_who_answers(choice: Choice, env: dict[str, str], backend: Backend) -> None:
    assert choose_backend(choice, env) is backend


def test_a_provider_without_a_key_is_refused() -> None:
    with pytest.raises(MissingKeyError, match="ANTHROPIC_API_KEY"):
        choose_backend("anthropic", {"OPENAI_API_KEY": "k"})


def test_a_stand_in_is_called_one() -> None:
    assert "not an LLM" in explain_backend(SCRIPTED)
    assert "gpt-4o" in explain_backend(OPENAI)
    scripted = Surroundings(SCRIPTED, "http://127.0.0.1:9/v1", LOCAL, True)
    assert "scripted stand-in" in build_stages(scripted, SCRIPTED_KEY)[0].story


def test_the_summary_adds_up() -> None:
    assert render_summary({"Cluster": 8.04, "LLM": 1.5}) == (
        "  Cluster     8.0 s\n  LLM         1.5 s\n  total       9.5 s"
    )
