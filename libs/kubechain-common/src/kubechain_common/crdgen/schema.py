"""From a pydantic model to a structural OpenAPI v3 schema, the only kind that a CustomResourceDefinition takes.

Two steps: pydantic writes JSON schema (``_Generator`` keeps out what the API server refuses: null types, and defaults
that are ours, not the API's), then ``_structural`` walks it: references inlined, titles dropped, free-form objects
marked. What has no structural form (recursion, tuples, unions) raises ``SchemaError`` with the path, here and not at
``kubectl apply``.

https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#specifying-a-structural-schema
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

Schema = dict[str, Any]

_REF_PREFIX = "#/$defs/"
_INT_OR_STRING = "x-kubernetes-int-or-string"
_PRESERVE_UNKNOWN = "x-kubernetes-preserve-unknown-fields"
_REWRITTEN = frozenset(
    {"title", "$defs", "const", "description", "items", "properties", "additionalProperties"}
    | {"exclusiveMinimum", "exclusiveMaximum"}
)
_UNSUPPORTED = ("allOf", "oneOf", "not", "prefixItems", "patternProperties", "uniqueItems", "discriminator")


class SchemaError(ValueError):
    """A model says something that no structural schema can say. Not retryable: the model has to change."""


class _Generator(GenerateJsonSchema):
    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])  # an absent field is absent, never null

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])  # only json_schema_extra puts a default into the API


def build_schema(model: type[BaseModel]) -> Schema:
    """The structural schema of ``model`` in its wire form; raises SchemaError."""
    raw = model.model_json_schema(by_alias=True, schema_generator=_Generator)
    return _structural(raw, raw.get("$defs", {}), path=model.__name__, open_refs=())


def _structural(node: Schema, defs: Mapping[str, Schema], path: str, open_refs: tuple[str, ...]) -> Schema:
    node, open_refs = _inline_reference(node, defs, path, open_refs)
    for keyword in _UNSUPPORTED:
        if keyword in node:
            raise SchemaError(f"{path}: {keyword} has no structural form")
    if "anyOf" in node and not node.get(_INT_OR_STRING):
        raise SchemaError(f"{path}: a union has no structural form; use optional sibling fields and a CEL rule")
    out: Schema = {k: v for k, v in node.items() if k not in _REWRITTEN}
    if "description" in node:
        out |= _describe(node["description"])
    if "const" in node:
        out["enum"] = [node["const"]]
    out |= _rewrite_bounds(node)
    if "items" in node:
        out["items"] = _structural(node["items"], defs, f"{path}[]", open_refs)
    if "properties" in node:
        out["properties"] = {
            name: _structural(child, defs, f"{path}.{name}", open_refs) for name, child in node["properties"].items()
        }
    out |= _rewrite_additional(node, defs, path, open_refs)
    if "type" not in out and not out.get(_INT_OR_STRING) and not out.get(_PRESERVE_UNKNOWN):
        raise SchemaError(f"{path}: has no type")
    return out


def _inline_reference(
    node: Schema, defs: Mapping[str, Schema], path: str, open_refs: tuple[str, ...]
) -> tuple[Schema, tuple[str, ...]]:
    """The node with its ``$ref`` replaced by what it names; keywords beside the reference win."""
    while "$ref" in node:
        name = str(node["$ref"]).removeprefix(_REF_PREFIX)
        if name in open_refs:
            raise SchemaError(f"{path}: {name} contains itself, which a structural schema can not say")
        open_refs = (*open_refs, name)
        node = {**defs[name], **{k: v for k, v in node.items() if k != "$ref"}}
    return node, open_refs


def _describe(docstring: str) -> Schema:
    """The first paragraph, without Python's markup; ``kubectl explain`` prints it."""
    paragraph = " ".join(docstring.split("\n\n")[0].split()).replace("``", "")
    return {} if paragraph.startswith("See http") else {"description": paragraph}


def _rewrite_bounds(node: Schema) -> Schema:
    """OpenAPI v3.0 has exclusive bounds as flags beside the bound."""
    out: Schema = {}
    for keyword, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if keyword in node:
            out |= {bound: node[keyword], keyword: True}
    return out


def _rewrite_additional(node: Schema, defs: Mapping[str, Schema], path: str, open_refs: tuple[str, ...]) -> Schema:
    """Maps keep their value schema; free-form objects keep whatever they are given."""
    additional = node.get("additionalProperties")
    if additional is True:
        return {_PRESERVE_UNKNOWN: True}
    if isinstance(additional, dict):
        return {"additionalProperties": _structural(additional, defs, f"{path}.*", open_refs)}
    return {}
