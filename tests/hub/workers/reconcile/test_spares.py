"""Which stopped machines are kept for their workers' next instances."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest

from hostler_hub.drivers.contract import Owned
from hostler_hub.drivers.fake import FakeDriver
from hostler_hub.lifecycle import Policy, Worker
from hostler_hub.specs.worker import WorkerDefinition
from hostler_hub.workers.reconcile.spares import SHOWN_AFTER_S, Spares
from hostler_hub.workers.registry import Entry, Registry

AT = 10_000.0


class Kept:
    """A store whose ledger holds these kept machines."""

    def __init__(self, *rows: dict[str, Any]) -> None:
        self.rows = list(rows)
        self.noted: list[str] = []

    async def read(self, _query: object, driver: str) -> list[dict[str, Any]]:
        assert driver == "fake"
        return self.rows

    async def write(self, _statement: object, gone: list[str]) -> None:
        self.noted += gone


def spares(*definitions: dict[str, Any], store: Kept | None = None) -> Spares:
    registry = Registry()
    for number, each in enumerate(definitions):
        fields = {"name": f"w{number}", "driver": "fake", **each}
        removing = fields.pop("removing", False)
        definition = WorkerDefinition.model_validate(fields)
        life = Worker(definition.name, Policy(), removing=removing)
        registry.add(Entry(definition, life, revision=1))
    return Spares("fake", cast("Any", FakeDriver), registry, cast("Any", store or Kept()))


def owned(instance: str, *, worker: str = "w0", epoch: int = 1, recipe: str = "r") -> Owned:
    return Owned(instance, epoch, {}, worker, spare=recipe)


RECIPE = {"driver_options": {"keep": "r"}}


@pytest.mark.parametrize(
    ("definition", "found", "kept"),
    [
        (RECIPE, owned("a"), True),
        (RECIPE, owned("a", recipe="older"), False),
        (RECIPE, owned("a", worker="unknown"), False),
        (RECIPE, replace(owned("a"), spare=""), False),
        ({}, owned("a"), False),
        ({**RECIPE, "removing": True}, owned("a"), False),
        ({**RECIPE, "driver": "local"}, owned("a"), False),
    ],
    ids=[
        "of the worker's recipe",
        "of another recipe",
        "of no worker",
        "no spare",
        "of a worker that keeps none",
        "of a worker that is being removed",
        "of a worker of another driver now",
    ],
)
def test_a_machine_is_kept_while_its_worker_would_take_it_up(
    definition: dict[str, Any], found: Owned, kept: bool
) -> None:
    assert spares(definition).kept([found]) == ({"a"} if kept else frozenset())


def test_of_a_worker_s_machines_the_newest_is_kept() -> None:
    found = [owned("a", epoch=2), owned("b", epoch=3), owned("c", epoch=1)]
    found += [owned("d", epoch=9, recipe="older"), owned("e", worker="w1")]
    assert spares(RECIPE, RECIPE).kept(found) == {"b", "e"}


async def test_P6_what_is_not_listed_is_gone_only_long_after_its_end() -> None:
    ends = {"listed": 0.0, "gone": AT - SHOWN_AFTER_S - 1, "perhaps": AT - SHOWN_AFTER_S}
    store = Kept(*({"id": name, "ended_at": at} for name, at in ends.items()))
    await spares(store=store).note_gone([owned("listed")], AT)
    assert store.noted == ["gone"]


async def test_places_that_no_definition_leads_to_any_more_are_remembered() -> None:
    options = [{"region": "north"}, {"region": "south"}, {"region": "south"}]
    found = spares(store=Kept(*({"driver_options": each} for each in options)))
    assert await found.former_places([{"region": "north", "keep": "r"}]) == [{"region": "south"}]
    assert await spares().former_places([]) == []
