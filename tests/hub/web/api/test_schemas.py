"""OpenAPI documents the models that the rooms make, and each of their fields."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
from pydantic import BaseModel

from hostler_hub.specs.group import GroupDefinition
from hostler_hub.specs.view import View
from hostler_hub.web import application
from hostler_hub.workers.views import DefinitionView

DOCUMENT = application.create(lambda app: nullcontext()).openapi()  # type: ignore[arg-type, return-value]


def models(kind: type[View]) -> list[type[View]]:
    below = [each for one in kind.__subclasses__() for each in (one, *models(one))]
    return [each for each in below if each.__module__.startswith("hostler_hub.")]


DEFINITIONS = (DefinitionView, GroupDefinition)


@pytest.mark.parametrize("model", [*models(View), *DEFINITIONS], ids=lambda model: model.__name__)
def test_every_field_of_every_view_says_what_it_is(model: type[BaseModel]) -> None:
    assert model.__doc__
    assert [name for name, field in model.model_fields.items() if not field.description] == []


def test_every_answer_is_a_view_of_one_name() -> None:
    names = [model.__name__ for model in models(View)]
    assert len(names) == len(set(names))
    schemas = DOCUMENT["components"]["schemas"]
    for path, methods in DOCUMENT["paths"].items():
        for method, route in methods.items():
            for status, answer in route["responses"].items():
                reference = answer.get("content", {}).get("application/json", {}).get("schema")
                if reference and status.startswith("2"):
                    name = reference["$ref"].rpartition("/")[2]
                    assert name in names, (method, path)
                    assert set(schemas[name]["required"]) == set(schemas[name]["properties"]) - {
                        "why_workers"  # the one field that is left out, and not null
                    }
