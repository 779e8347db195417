"""Every example inventory is one that a hub takes as it stands, through the module's own checks."""

from __future__ import annotations

import copy
import json
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.inventory.manager import InventoryManager
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.parsing.dataloader import DataLoader
from ansible.vars.manager import VariableManager
from ansible_collections.hostler.fleet.plugins.filter.definitions import definitions
from ansible_collections.hostler.fleet.plugins.modules import worker

from hostler_hub.app import running
from hostler_hub.drivers import registry
from hostler_hub.runtime.clock import SystemClock
from hostler_hub.runtime.settings import Settings
from hostler_hub.specs.worker import WorkerDefinition
from hostler_hub.web.hub import Hub

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "inventories" / "example").glob("*.yml"))
NOT_FOR_PEOPLE = {"fake"}


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Hub]:
    """With all drivers, and the secrets that examples name."""
    settings = Settings(state_dir=tmp_path / "hub", port=1, secrets_dir=str(tmp_path / "secrets"))
    settings.prepare_state_dir()
    (tmp_path / "secrets").mkdir(mode=0o700)
    secret = tmp_path / "secrets" / "bench"
    secret.write_text("a good long password\n")
    secret.chmod(0o600)
    async with running(settings, SystemClock()) as made:
        yield made


def loaded(path: Path) -> list[dict[str, Any]]:
    """The definitions of the inventory's hosts, as playbooks/provision.yml makes them."""
    loader = DataLoader()
    inventory = InventoryManager(loader=loader, sources=[str(path)])
    variables = VariableManager(loader=loader, inventory=inventory)
    hosts = inventory.get_hosts("workers")
    assert hosts, f"{path} has no hosts in the group workers"
    known = {host.name: variables.get_vars(host=host) for host in hosts}
    return definitions(known, list(known))


def as_sent(given: list[dict[str, Any]]) -> list[WorkerDefinition]:
    """Through the module's own checks, to what it sends and the hub reads."""
    options = {"name": {"type": "str", "required": True}, **copy.deepcopy(worker.DEFINITION)}
    spec = {"workers": {"type": "list", "elements": "dict", "options": options}}
    result = ArgumentSpecValidator(spec).validate({"workers": given})
    assert result.error_messages == []
    sent = worker.definitions(SimpleNamespace(params=result.validated_parameters))
    return [WorkerDefinition.model_validate(each) for each in json.loads(json.dumps(sent))]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
async def test_an_example_is_defined_as_it_stands(hub: Hub, path: Path) -> None:
    wanted = as_sent(loaded(path))
    assert {each.driver for each in wanted} == {path.stem}
    results = await hub.definitions.define(wanted, dry_run=False, by="ann")
    assert all(result.created for result in results)
    again = await hub.definitions.define(wanted, dry_run=True, by="ann")
    assert not any(result.changed for result in again)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_says_what_its_options_are_for(path: Path) -> None:
    comments = [line for line in path.read_text().splitlines() if line.lstrip().startswith("#")]
    assert len(comments) >= 3


def test_there_is_an_example_of_every_driver() -> None:
    assert set(registry.load()) - NOT_FOR_PEOPLE <= {path.stem for path in EXAMPLES}
