"""The six CRDs: what the seed prints of them, and what the API server asks of every schema."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from kubechain_common.api.v1alpha1 import ALL_KINDS, Resource, Task, TaskRunToolCall
from kubechain_common.crdgen import build_crds
from kubechain_common.crdgen.manifest import build_crd
from kubechain_common.crdgen.schema import Schema

# What `kubectl get` prints after NAME, and what `-o wide` adds.
COLUMNS = {
    "llms": (["Provider", "Ready", "Status"], ["Detail"]),
    "agents": (["Ready", "Status"], ["Detail"]),
    "tasks": (
        ["Ready", "Status", "Phase", "Preview", "Output"],
        ["Detail", "Error", "Started", "Completed", "Tokens", "Cost"],
    ),
    "taskruntoolcalls": (["Phase", "TaskRun", "Tool"], ["Status", "Detail", "Started", "Completed", "Error"]),
    "mcpservers": (["Ready", "Status"], ["Detail"]),
    "contactchannels": (["Type", "Ready", "Status"], ["Detail"]),
}

ALL_ANNOTATIONS = 262_144
"""Bytes that the API server takes of an object's annotations; `kubectl apply` keeps the whole manifest in one."""

Node = tuple[str, Schema]


def walk(schema: Schema, path: str = "") -> Iterator[Node]:
    """Every schema node with its path."""
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from walk(child, f"{path}.{name}")
    for keyword in ("items", "additionalProperties"):
        if keyword in schema:
            yield from walk(schema[keyword], f"{path}[{keyword}]")


def version_of(crd: dict[str, Any]) -> dict[str, Any]:
    (version,) = crd["spec"]["versions"]
    assert isinstance(version, dict)
    return version


def nodes_of(kind: type[Resource]) -> list[Node]:
    return list(walk(version_of(build_crd(kind))["schema"]["openAPIV3Schema"]))


def test_calls_can_be_selected_by_whether_they_are_known_outside() -> None:
    selectable = {kind.crd.plural: version_of(build_crd(kind)).get("selectableFields") for kind in ALL_KINDS}
    assert selectable.pop("taskruntoolcalls") == [{"jsonPath": ".status.externalCallID"}]
    assert set(selectable.values()) == {None}


def test_there_is_one_file_per_kind() -> None:
    assert {name: crd["spec"]["names"]["kind"] for name, crd in build_crds().items()} == {
        "kubechain.humanlayer.dev_llms.yaml": "LLM",
        "kubechain.humanlayer.dev_agents.yaml": "Agent",
        "kubechain.humanlayer.dev_tasks.yaml": "Task",
        "kubechain.humanlayer.dev_taskruntoolcalls.yaml": "TaskRunToolCall",
        "kubechain.humanlayer.dev_mcpservers.yaml": "MCPServer",
        "kubechain.humanlayer.dev_contactchannels.yaml": "ContactChannel",
    }


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_columns_are_those_of_the_seed_and_new_ones_are_wide_only(kind: type[Resource]) -> None:
    columns = version_of(build_crd(kind))["additionalPrinterColumns"]
    narrow = [c["name"] for c in columns if not c.get("priority")]
    wide = [c["name"] for c in columns if c.get("priority")]
    assert (narrow, wide) == COLUMNS[kind.crd.plural]


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_every_column_shows_a_field_that_the_schema_has(kind: type[Resource]) -> None:
    fields = {path for path, _ in nodes_of(kind)}
    assert {column.json_path for column in kind.crd.columns} <= fields


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_names_scope_and_subresource(kind: type[Resource]) -> None:
    crd = build_crd(kind)
    names = crd["spec"]["names"]
    assert crd["metadata"]["name"] == f"{names['plural']}.kubechain.humanlayer.dev"
    assert names["listKind"] == f"{names['kind']}List"
    assert names["categories"] == ["kubechain"]
    assert crd["spec"]["scope"] == "Namespaced"
    assert crd["spec"]["conversion"] == {"strategy": "None"}
    assert version_of(crd)["subresources"] == {"status": {}}


def test_a_tool_call_has_a_short_name() -> None:
    assert build_crd(TaskRunToolCall)["spec"]["names"]["shortNames"] == ["trtc"]


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_every_node_is_structural(kind: type[Resource]) -> None:
    for path, node in nodes_of(kind):
        assert "type" in node or node.get("x-kubernetes-int-or-string"), path
        assert not {"$ref", "$defs", "title", "const", "allOf", "oneOf", "not", "nullable"} & set(node), path
        assert set(node.get("required", ())) <= set(node.get("properties", {})), path
        assert not ("properties" in node and "additionalProperties" in node), path


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_keys_of_a_list_map_are_required_fields(kind: type[Resource]) -> None:
    for path, node in nodes_of(kind):
        keys = node.get("x-kubernetes-list-map-keys", [])
        assert bool(keys) == (node.get("x-kubernetes-list-type") == "map"), path
        assert set(keys) <= set(node.get("items", {}).get("required", [])), path


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_a_status_requires_nothing_and_a_spec_is_required(kind: type[Resource]) -> None:
    schema = version_of(build_crd(kind))["schema"]["openAPIV3Schema"]
    assert schema["required"] == ["spec"]
    assert "required" not in schema["properties"]["status"]
    assert schema["properties"]["metadata"] == {"type": "object"}


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_kubectl_explain_tells_every_field(kind: type[Resource]) -> None:
    untold = [
        path
        for path, node in nodes_of(kind)
        if path.startswith((".spec", ".status"))
        and not path.endswith("]")  # an item of a list is told by the list
        and not node.get("description", "").endswith(".")
    ]
    assert untold == []


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_kubectl_can_apply_it(kind: type[Resource]) -> None:
    assert len(json.dumps(build_crd(kind))) < ALL_ANNOTATIONS


def test_the_api_has_two_defaults_only() -> None:
    defaults = {
        (kind.crd.kind, path): node["default"]
        for kind in ALL_KINDS
        for path, node in nodes_of(kind)
        if "default" in node
    }
    assert defaults == {
        ("LLM", ".spec.openai.apiType"): "OPEN_AI",
        ("TaskRunToolCall", ".status"): {"phase": "Pending"},
    }


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_every_rule_has_a_message(kind: type[Resource]) -> None:
    for path, node in nodes_of(kind):
        for rule in node.get("x-kubernetes-validations", ()):
            assert rule["rule"], path
            assert rule["message"], path


@pytest.mark.parametrize("kind", [Task, TaskRunToolCall])
def test_a_status_write_evaluates_few_rules(kind: type[Resource]) -> None:
    """Each is evaluated by every write of a status; one on an item of a list, as often as there are items."""
    ruled = {path: len(rules) for path, node in nodes_of(kind) if (rules := node.get("x-kubernetes-validations"))}
    always = {
        path: number for path, number in ruled.items() if path in ("", ".spec", ".spec.agentRef", ".spec.taskRunRef")
    }
    assert sum(always.values()) == 4
    assert [path for path in ruled if "[items]" in path or path.startswith(".status")] == []


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_what_a_user_writes_is_bounded(kind: type[Resource]) -> None:
    """An unbounded string or list makes every rule over it unaffordable to the API server's CEL estimate."""
    for path, node in nodes_of(kind):
        if not path.startswith(".spec") or "enum" in node or "format" in node:
            continue
        if node.get("type") == "string":
            assert "maxLength" in node, path
        if node.get("type") == "array":
            assert "maxItems" in node, path
