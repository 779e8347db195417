"""The modules' RETURN documentation has the fields of the models that the hub answers with."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.hostler.fleet.plugins.module_utils import selection
from ansible_collections.hostler.fleet.plugins.modules import build, build_info

from hostler_hub.lifecycle.model import Mode, State
from hostler_hub.specs.states import TERMINAL_BUILD_STATES, BuildState

ROOT = Path(__file__).parents[2]
SCRIPT = runpy.run_path(str(ROOT / "scripts" / "module-returns"))
SHOWN = SCRIPT["SHOWN"]
MODULES = ROOT / "plugins" / "modules"


def returned(text: str) -> dict[str, Any]:
    documented: dict[str, Any] = yaml.safe_load(
        text.split('RETURN = r"""')[1].split('"""', maxsplit=1)[0]
    )
    return documented


@pytest.mark.parametrize("name", sorted(SHOWN))
def test_a_module_documents_every_field_that_the_hub_answers_with(name: str) -> None:
    text = (MODULES / f"{name}.py").read_text()
    assert SCRIPT["documented"](text, SHOWN[name]) == text, "run `make docs`"
    for key, model in SHOWN[name].items():
        contains = returned(text)[key]["contains"]
        fields = model.model_json_schema(mode="serialization")["properties"]
        assert list(contains)[: len(fields)] == list(fields)
        for field in contains.values():
            assert field["description"]
            assert field["type"] in SCRIPT["TYPES"].values()


def test_a_field_that_is_missing_or_of_another_type_is_written_anew() -> None:
    text = (MODULES / "worker_info.py").read_text()
    fields = returned(text)["workers"]["contains"]
    older = text.replace("    uses:\n", "    used:\n").replace(
        "      description: Whether its agent is connected.\n      type: bool",
        "      description: Whether its agent is connected.\n      type: str",
    )
    assert returned(older)["workers"]["contains"] != fields
    fresh = returned(SCRIPT["documented"](older, SHOWN["worker_info"]))["workers"]["contains"]
    assert fresh.pop("used")["type"] == "int"  # a key that no model has is the module's own
    assert fresh == fields


def test_every_module_that_returns_views_is_known_here() -> None:
    """One that documents items of its own says so by having another name."""
    own = {"process_info": {"processes"}, "fire_drill": {"drill"}}
    for path in sorted(MODULES.glob("*.py")):
        keys = {key for key, value in returned(path.read_text()).items() if "contains" in value}
        assert keys == set(SHOWN.get(path.stem, {})) | own.get(path.stem, set()), path.stem


def test_the_plugins_words_for_states_are_the_hub_s() -> None:
    assert list(State) == selection.STATES
    assert list(Mode) == selection.MODES
    assert set(build.TERMINAL) == TERMINAL_BUILD_STATES
    options = yaml.safe_load(build_info.DOCUMENTATION)["options"]
    assert options["state"]["choices"] == list(BuildState)
