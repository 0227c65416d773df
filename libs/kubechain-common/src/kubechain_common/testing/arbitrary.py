"""Arbitrary objects and messages for fuzz tests (Hypothesis): whatever a schema admits, however odd.

``@fuzz`` runs a few examples, always the same ones; ``KUBECHAIN_FUZZ_EXAMPLES=5000`` runs as many, new ones each time.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from typing import Any, TypeVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from kubechain_common.api.v1alpha1.meta import API_VERSION, Resource
from kubechain_common.crdgen.schema import build_schema
from kubechain_common.testing.structural import INT64, Schema, pattern_of

M = TypeVar("M", bound=BaseModel)
R = TypeVar("R", bound=Resource)
Json = st.SearchStrategy[Any]
Overrides = Mapping[str, Json]
"""Strategies for fields of a name, wherever they are."""

_EXAMPLES = os.environ.get("KUBECHAIN_FUZZ_EXAMPLES")
_LONGEST = 12
_MOST = 3

fuzz = settings(
    max_examples=int(_EXAMPLES or 40),
    derandomize=_EXAMPLES is None,
    database=None,
    deadline=None,
    # Explaining traces every line, and shrinking values as large as these takes minutes: only a hunt waits for that.
    phases=[Phase.explicit, Phase.generate, *([Phase.shrink] if _EXAMPLES else [])],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)

NAMES = st.sampled_from(["a", "b", "a.b", "n" * 253])
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=_LONGEST),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
_MOMENTS = st.datetimes().map(lambda moment: moment.isoformat() + "Z") | st.sampled_from(
    ["0000-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00", "2026-01-01T00:00:00+99:99", "2026-01-01t00:00:00.123456789z"]
)


schema_of = cache(build_schema)


def values(schema: Schema, overrides: Overrides | None = None) -> Json:
    """JSON that the structural schema takes."""
    overrides = overrides or {}
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if schema.get("x-kubernetes-int-or-string"):
        return st.integers(INT64[0], INT64[-1]) | st.text(max_size=_LONGEST)
    match schema.get("type"):
        case "string":
            return _texts(schema)
        case "integer":
            return st.integers(schema.get("minimum", INT64[0]), schema.get("maximum", INT64[-1]))
        case "number":
            return st.floats(allow_nan=False, allow_infinity=False)
        case "boolean":
            return st.booleans()
        case "array":
            least = schema.get("minItems", 0)
            most = max(least, min(schema.get("maxItems", _MOST), _MOST))
            return st.lists(values(schema["items"], overrides), min_size=least, max_size=most)
    return _objects(schema, overrides)


def _texts(schema: Schema) -> Json:
    if schema.get("format") == "date-time":
        return _MOMENTS
    pattern = pattern_of(schema)
    if pattern is not None:
        return st.from_regex(pattern, fullmatch=True).filter(lambda text: len(text) <= schema.get("maxLength", 253))
    least = schema.get("minLength", 0)
    return st.text(min_size=least, max_size=max(least, min(schema.get("maxLength", _LONGEST), _LONGEST)))


def _objects(schema: Schema, overrides: Overrides) -> Json:
    if schema.get("x-kubernetes-preserve-unknown-fields"):
        return st.dictionaries(st.text(max_size=8), JSON, max_size=3)
    if "additionalProperties" in schema:
        return st.dictionaries(st.text(max_size=8), values(schema["additionalProperties"], overrides), max_size=2)
    fields = {
        name: overrides[name] if name in overrides else values(child, overrides)
        for name, child in schema.get("properties", {}).items()
    }
    required = {name: fields.pop(name) for name in schema.get("required", ())}
    return st.fixed_dictionaries(required, optional=fields)


def manifests(kind: type[Resource], overrides: Overrides | None = None) -> Json:
    """Objects of the kind as the API server serves them: spec and status as the schema admits, metadata its own."""
    schema = schema_of(kind)["properties"]
    metadata = st.fixed_dictionaries(
        {
            "name": NAMES,
            "namespace": st.sampled_from(["default", "other"]),
            "uid": st.uuids().map(str),
            "resourceVersion": st.integers(1, 2**63).map(str),
            "generation": st.integers(1, 5),
            "creationTimestamp": _MOMENTS,
        },
        optional={"deletionTimestamp": _MOMENTS},
    )
    return st.fixed_dictionaries(
        {
            "apiVersion": st.just(API_VERSION),
            "kind": st.just(kind.crd.kind),
            "metadata": metadata,
            "spec": values(schema["spec"], overrides),
        },
        optional={"status": values(schema["status"], overrides)},
    )


def resources(kind: type[R], overrides: Overrides | None = None) -> st.SearchStrategy[R]:
    """Objects as an informer holds them."""
    return manifests(kind, overrides).map(kind.model_validate)


def models(model: type[M], overrides: Overrides | None = None) -> st.SearchStrategy[M]:
    """Messages, or parts of objects."""
    return values(schema_of(model), overrides).map(model.model_validate)
