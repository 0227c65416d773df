"""Names of tools on the wire: always fit, always unique, always looked up."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from kubechain_common.testing.builders import build_agent, build_mcp_server
from kubechain_task_controller.core.tool_catalog import build_catalog, wire_name


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
    catalog = build_catalog(agent, servers)
    found = {(e.target.name, e.target.tool) for e in catalog.entries.values()}
    assert found == {("a", "x__y"), ("a", "naïve tool"), ("b.c", "x")}
    entry = catalog.find("a__x__y")
    assert entry is not None
    assert entry.target.tool == "x__y"


def test_only_allowed_tools_are_offered_and_schemas_stay_whole() -> None:
    agent = build_agent(mcpServers=[{"name": "fetch", "tools": ["head"]}])
    catalog = build_catalog(agent, {"fetch": build_mcp_server(tools=("fetch", "head"))})
    assert [d.name for d in catalog.definitions()] == ["fetch__head"]
    assert catalog.definitions()[0].parameters == {"type": "object"}
