"""Each rule of the translation, on a model as small as the rule."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, create_model

from kubechain_common.api.v1alpha1.meta import KubeModel, MicroTime, Timestamp
from kubechain_common.api.v1alpha1.rules import at_creation, cel, cel_all, unless, validations
from kubechain_common.crdgen.schema import Schema, SchemaError, build_schema


class Colour(StrEnum):
    RED = "Red"
    BLUE = "Blue"


class Leaf(KubeModel):
    """A ``leaf`` of the tree.

    More than anybody wants to read in kubectl explain.
    """

    name: str


class Branch(KubeModel):
    children: list[Branch]


def schema_of(annotation: Any, default: Any = ...) -> Schema:
    """The schema of one field of this type."""
    model = create_model("Probe", __base__=KubeModel, some_field=(annotation, default))
    schema: Schema = build_schema(model)["properties"]["someField"]
    return schema


def test_names_are_camel_case_and_only_fields_without_default_are_required() -> None:
    class Probe(KubeModel):
        must_have: str
        may_have: str = "x"
        optional: str | None = None
        listed: list[str] = Field(default_factory=list)

    schema = build_schema(Probe)

    assert list(schema["properties"]) == ["mustHave", "mayHave", "optional", "listed"]
    assert schema["required"] == ["mustHave"]


def test_our_own_defaults_stay_out_of_the_api() -> None:
    assert schema_of(str, "x") == {"type": "string"}
    assert schema_of(int | None, None) == {"type": "integer"}


def test_an_explicit_default_becomes_part_of_the_api() -> None:
    assert schema_of(Annotated[str, Field(json_schema_extra={"default": "x"})], "y") == {
        "type": "string",
        "default": "x",
    }


def test_an_optional_field_is_absent_never_null() -> None:
    assert schema_of(Annotated[str, Field(max_length=3)] | None, None) == {"type": "string", "maxLength": 3}


@pytest.mark.parametrize(
    ("annotation", "values"), [(Literal["a"], ["a"]), (Literal["a", "b"], ["a", "b"]), (Colour, ["Red", "Blue"])]
)
def test_literals_and_enums_become_an_enum(annotation: Any, values: list[str]) -> None:
    schema = schema_of(annotation)
    assert schema["type"] == "string"
    assert schema["enum"] == values
    assert "const" not in schema


@pytest.mark.parametrize("annotation", [Timestamp, MicroTime])
def test_timestamps_are_date_times(annotation: Any) -> None:
    assert schema_of(annotation) == {"type": "string", "format": "date-time"}


def test_references_are_inlined_with_their_first_paragraph_as_description() -> None:
    assert schema_of(list[Leaf]) == {
        "type": "array",
        "items": {
            "type": "object",
            "description": "A leaf of the tree.",
            "properties": {"name": {"type": "string"}},
            "required": ["name"],
        },
    }


def test_a_description_that_only_links_is_dropped() -> None:
    class Linked(KubeModel):
        """See https://kubernetes.io/docs"""

        name: str

    assert "description" not in build_schema(Linked)


def test_a_free_form_object_keeps_unknown_fields() -> None:
    assert schema_of(dict[str, Any] | None, None) == {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


def test_a_map_keeps_the_schema_of_its_values() -> None:
    assert schema_of(dict[str, int]) == {"type": "object", "additionalProperties": {"type": "integer"}}


def test_an_int_or_string_has_no_type_of_its_own() -> None:
    extra: dict[str, Any] = {
        "anyOf": [{"type": "integer"}, {"type": "string"}],
        "x-kubernetes-int-or-string": True,
    }
    assert schema_of(Annotated[int | str, Field(json_schema_extra=extra)]) == extra


def test_exclusive_bounds_become_flags() -> None:
    assert schema_of(Annotated[int, Field(gt=0, lt=9)]) == {
        "type": "integer",
        "minimum": 0,
        "exclusiveMinimum": True,
        "maximum": 9,
        "exclusiveMaximum": True,
    }


def test_cel_rules_and_list_keys_pass_through() -> None:
    class Probe(KubeModel):
        model_config = ConfigDict(json_schema_extra=validations(cel("has(self.a)", "a is required")))

        a: Annotated[list[Leaf], Field(json_schema_extra={"x-kubernetes-list-type": "map"})] | None = None

    schema = build_schema(Probe)

    assert schema["x-kubernetes-validations"] == [{"rule": "has(self.a)", "message": "a is required"}]
    assert schema["properties"]["a"]["x-kubernetes-list-type"] == "map"


def test_several_rules_in_one_complain_of_those_that_are_broken() -> None:
    rule = cel_all(cel("self.a", "it isn't a"), cel("self.b || self.c", "no b"), message="no", field="a")
    assert rule == {
        "rule": "(self.a) && (self.b || self.c)",
        "message": "no",
        "fieldPath": ".a",
        "messageExpression": "(((self.a) ? '' : '; it isn\\'t a') + ((self.b || self.c) ? '' : '; no b')).substring(2)",
    }


def test_a_rule_has_a_way_out_for_writes_that_do_not_concern_it() -> None:
    rule = cel("self.a || self.b", "no", field="a")
    assert unless("self == oldSelf", rule) == rule | {"rule": "self == oldSelf || (self.a || self.b)"}
    assert at_creation(rule) == rule | {"rule": "oldSelf.hasValue() || (self.a || self.b)", "optionalOldSelf": True}


@pytest.mark.parametrize(
    ("annotation", "complaint"),
    [
        (Branch, r"Probe\.someField\.children\[\]: Branch contains itself"),
        (int | str, r"Probe\.someField: a union"),
        (list[Leaf | Branch], r"Probe\.someField\[\]: a union"),
        (tuple[int, str], r"Probe\.someField: prefixItems"),
        (set[str], r"Probe\.someField: uniqueItems"),
        (Any, r"Probe\.someField: has no type"),
        (list[Any], r"Probe\.someField\[\]: has no type"),
    ],
)
def test_what_has_no_structural_form_is_refused_with_its_path(annotation: Any, complaint: str) -> None:
    with pytest.raises(SchemaError, match=complaint):
        schema_of(annotation)


def test_a_model_that_is_used_twice_is_not_recursion() -> None:
    class Probe(BaseModel):
        left: Leaf
        right: Leaf

    properties = build_schema(Probe)["properties"]
    assert properties["left"] == properties["right"]
