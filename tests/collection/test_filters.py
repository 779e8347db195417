"""The filters table and definitions."""

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.hostler.fleet.plugins.filter.definitions import definitions
from ansible_collections.hostler.fleet.plugins.filter.table import table


def test_a_table_is_aligned_and_has_headings():
    rows = [
        {"name": "local-1", "mode_reason": "new compiler", "builds": ["1", "2"]},
        {"name": "x", "builds": []},
    ]
    assert table(rows, ["name", "builds", "mode_reason=why"]).split("\n") == [
        "name     builds  why",
        "local-1  1, 2    new compiler",
        "x        -       -",
    ]


def test_what_a_worker_says_cannot_drive_the_terminal():
    """U9, terminal escapes: a row stays one line of printable characters."""
    text = table([{"name": "a", "last_error": "\x1b]0;owned\x07\nok"}], ["name", "last_error"])
    assert text.split("\n")[1] == "a     ?]0;owned??ok"


def test_a_dictionary_is_shown_by_its_reason_and_a_boolean_by_words():
    rows = [{"missing": {"since": "now", "reason": "went away"}, "attached": False}]
    assert table(rows, ["missing", "attached"]).split("\n")[1] == "went away  no"


@pytest.mark.parametrize("rows", [None, "text", [1], {"a": 1}])
def test_what_is_no_list_of_dictionaries_is_refused(rows):
    with pytest.raises(AnsibleFilterError, match="list of dictionaries"):
        table(rows, ["name"])


HOSTS = {
    "local-1": {"hostler_driver": "local", "hostler_labels": ["x"], "ansible_host": "ignored"},
    "local-2": {"hostler_driver": "local", "hostler_state": "latent", "hostler_mode": "active"},
    "typo": {"hostler_driver": "local", "hostler_max_build": 2},
    "bare": {},
}


def test_definitions_hold_what_the_inventory_says_and_nothing_else():
    """Variables of the live inventory tell how a worker is; they are no part of a definition."""
    assert definitions(HOSTS, ["local-2", "local-1"]) == [
        {"name": "local-2", "driver": "local"},
        {"name": "local-1", "driver": "local", "labels": ["x"]},
    ]


def test_a_slip_of_the_pen_is_refused():
    with pytest.raises(
        AnsibleFilterError, match=r"host typo: hostler_max_build is no option.*hostler_max_builds"
    ):
        definitions(HOSTS, ["local-1", "typo"])


def test_a_host_without_a_driver_is_refused():
    with pytest.raises(AnsibleFilterError, match="host bare has no hostler_driver"):
        definitions(HOSTS, ["bare"])
