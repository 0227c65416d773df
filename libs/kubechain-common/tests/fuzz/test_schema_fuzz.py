"""The CRDs and the models agree: what the API server admits, every informer can read, and writes back unharmed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from kubechain_common.api.v1alpha1 import ALL_KINDS, Resource
from kubechain_common.testing.arbitrary import JSON, fuzz, manifests, schema_of
from kubechain_common.testing.structural import find_violations

SERVED = {kind: manifests(kind) for kind in ALL_KINDS}
KINDS = pytest.mark.parametrize("kind", ALL_KINDS, ids=lambda kind: kind.crd.kind)


def violations(kind: type[Resource], wire: dict[str, Any]) -> list[str]:
    properties = schema_of(kind)["properties"]
    return [
        v for part in ("spec", "status") if part in wire for v in find_violations(properties[part], wire[part], part)
    ]


@KINDS
@fuzz
@given(data=st.data())
def test_what_the_schema_admits_is_read_and_written_back(kind: type[Resource], data: st.DataObject) -> None:
    served = data.draw(SERVED[kind])
    assert violations(kind, served) == []
    written = kind.model_validate(served).to_wire()
    assert violations(kind, written) == []
    assert lost(served["spec"], written["spec"]) == []
    assert lost(served.get("status", {}), written["status"]) == []
    assert kind.model_validate(written).to_wire() == written


@KINDS
@fuzz
@given(data=st.data())
def test_what_a_model_takes_fits_the_schema(kind: type[Resource], data: st.DataObject) -> None:
    """Valid manifests with anything at all put in some place of theirs."""
    served = data.draw(SERVED[kind])
    spoil(served[data.draw(st.sampled_from(["spec", "status"])) if "status" in served else "spec"], data)
    try:
        resource = kind.model_validate(served)
    except ValidationError:
        return
    assert violations(kind, resource.to_wire()) == []


@pytest.mark.parametrize("raw", ["", "{", '{"spec": 1}', '{"spec": {"maxTurns": 1e400}}', "[" * 5000, "\ud800"])
@KINDS
def test_what_is_no_object_is_a_validation_error(kind: type[Resource], raw: str) -> None:
    with pytest.raises(ValidationError):
        kind.model_validate_json(raw.encode("utf-8", "surrogatepass"))


def lost(before: Any, after: Any, path: str = "") -> list[str]:
    """Where ``after`` does not say what ``before`` did; it may say more (defaults)."""
    if isinstance(before, dict) and isinstance(after, dict):
        gone = [f"{path}.{key}" for key in before if key not in after]
        return gone + [p for key in before if key in after for p in lost(before[key], after[key], f"{path}.{key}")]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        return [p for i, (b, a) in enumerate(zip(before, after, strict=True)) for p in lost(b, a, f"{path}[{i}]")]
    return [] if same(before, after) else [f"{path}: {before!r} became {after!r}"]


def same(before: Any, after: Any) -> bool:
    """Equal, or both of them moments: those are written back in UTC, and the impossible ones as long ago."""
    return before == after or (is_moment(before) and is_moment(after))


def is_moment(value: Any) -> bool:
    return isinstance(value, str) and not list(find_violations({"type": "string", "format": "date-time"}, value))


def spoil(part: dict[str, Any], data: st.DataObject) -> None:
    """Put some JSON in the place of one value, somewhere in ``part``."""
    places = list(walk(part))
    if not places:
        return
    holder, key = data.draw(st.sampled_from(range(len(places))).map(lambda i: places[i]))
    holder[key] = json.loads(json.dumps(data.draw(JSON)))


def walk(node: Any) -> list[tuple[Any, Any]]:
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [place for key, child in items for place in [(node, key), *walk(child)]]
