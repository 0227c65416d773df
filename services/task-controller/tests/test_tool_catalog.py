"""Names of tools on the wire: always fit, always unique, always looked up."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from kubechain_common.testing.builders import build_agent, build_contact_channel, build_mcp_server
from kubechain_task_controller.core.tool_catalog import CatalogEntry, ToolCatalog, build_catalog, wire_name


def test_a_fit_name_stays_as_it_is() -> None:
    assert wire_name("fetch__fetch") == "fetch__fetch"


@given(st.text(min_size=1, max_size=300))
def test_every_name_fits_the_wire(name: str) -> None:
    assert re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", wire_name(name))


@given(st.sets(st.text(min_size=1, max_size=100), min_size=2, max_size=20))
def test_different_names_stay_different(names: set[str]) -> None:
    assert len({wire_name(n) for n in names}) == len(names)


def test_a_name_is_looked_up_and_never_split() -> None:
    agent = build_agent(mcpServers=[{"name": "a"}, {"name": "b.c"}])
    servers = {"a": build_mcp_server("a", tools=("x__y", "naïve tool")), "b.c": build_mcp_server("b.c", tools=("x",))}
    catalog = build_catalog(agent, servers, {}, {})
    found = {(e.target.name, e.target.tool) for e in catalog.entries.values()}
    assert found == {("a", "x__y"), ("a", "naïve tool"), ("b.c", "x")}
    entry = catalog.find("a__x__y")
    assert entry is not None
    assert entry.target.tool == "x__y"


def test_only_allowed_tools_are_offered_and_schemas_stay_whole() -> None:
    agent = build_agent(mcpServers=[{"name": "fetch", "tools": ["head"]}])
    catalog = build_catalog(agent, {"fetch": build_mcp_server(tools=("fetch", "head"))}, {}, {})
    assert [d.name for d in catalog.definitions()] == ["fetch__head"]
    assert catalog.definitions()[0].parameters == {"type": "object"}


def test_people_and_agents_are_tools_that_take_a_message() -> None:
    agent = build_agent(
        humanContactChannels=[{"name": "boss"}, {"name": "crew"}, {"name": "nobody"}],
        subAgents=[{"name": "helper"}, {"name": "a.b"}, {"name": "nobody"}],
    )
    channels = {
        "boss": build_contact_channel("boss", inbox={"contextAboutUser": "The boss."}),
        "crew": build_contact_channel("crew"),
    }
    sub_agents = {"helper": build_agent("helper", description="Helps."), "a.b": build_agent("a.b")}
    catalog = build_catalog(agent, {}, channels, sub_agents)
    assert [(d.name, d.description) for d in catalog.definitions()] == [
        ("boss__human_contact_inbox", "The boss."),
        ("crew__human_contact_inbox", "Contact a human via inbox"),
        ("delegate_to_agent__helper", "Helps."),
        (wire_name("delegate_to_agent__a.b"), 'Delegate a task to the agent "a.b" and get its final answer'),
    ]
    assert [(e.type, e.target.name, e.target.tool) for e in catalog.entries.values()] == [
        ("HumanContact", "boss", None),
        ("HumanContact", "crew", None),
        ("DelegateToAgent", "helper", None),
        ("DelegateToAgent", "a.b", None),
    ]
    for definition in catalog.definitions():
        assert list(definition.parameters["properties"]) == definition.parameters["required"] == ["message"]


def test_a_tool_and_a_person_of_one_name_are_both_offered() -> None:
    agent = build_agent(mcpServers=[{"name": "boss"}], humanContactChannels=[{"name": "boss"}])
    servers = {"boss": build_mcp_server("boss", tools=("human_contact_inbox",))}
    catalog = build_catalog(agent, servers, {"boss": build_contact_channel("boss")}, {})
    tool, person = catalog.entries.items()
    assert (tool[0], tool[1].type) == ("boss__human_contact_inbox", "MCP")
    assert (person[1].type, person[1].definition.name) == ("HumanContact", person[0])
    assert re.fullmatch(r"boss__human_contact_inbox_[a-zA-Z0-9_]{1,38}", person[0])


def test_a_catalogue_that_nobody_asks_is_not_put_together() -> None:
    asked: list[str] = []

    def build() -> dict[str, CatalogEntry]:
        asked.append("build")
        return {}

    catalog = ToolCatalog(build)
    assert not asked
    assert (catalog.find("fetch__fetch"), catalog.definitions(), asked) == (None, [], ["build"])
