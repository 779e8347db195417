"""The inventory plugin, by real ansible-inventory and ansible-playbook against a stand-in."""

import json

TOKEN = "stand-in-token-6f1c2a"


def define(hub, *workers):
    hub.define({"workers": [{"driver": "local", **one} for one in workers], "dry_run": False})


def write(tmp_path, hub, **options):
    path = tmp_path / "test.hostler.yml"
    path.write_text(
        json.dumps(
            {"plugin": "hostler.fleet.workers", "hub_url": hub.url, "hub_token": TOKEN, **options}
        )
    )
    return path


def listed(ansible, path, **kwargs):
    done = ansible("ansible-inventory", "-i", path, "--list", **kwargs)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def unsafe(text):
    """How ansible-inventory shows a string that is never taken as a template."""
    return {"__ansible_unsafe": text}


def test_workers_are_hosts_in_groups_by_what_they_are(hub, ansible, tmp_path):
    define(hub, {"name": "a", "labels": ["linux", "big-disk"]}, {"name": "b"})
    hub.workers["b"].update(mode="paused", state="substantiated", mode_reason="lunch")
    hub.workers["b"].update(missing={"since": "2026-11-21T08:00:00.000Z", "reason": "gone"})
    found = listed(ansible, write(tmp_path, hub))
    groups = {name: group["hosts"] for name, group in found.items() if "hosts" in group}
    assert groups == {
        "workers": ["a", "b"],
        "driver_local": ["a", "b"],
        "label_big_disk": ["a"],
        "label_linux": ["a"],
        "missing": ["b"],
        "mode_active": ["a"],
        "mode_paused": ["b"],
        "state_latent": ["a"],
        "state_substantiated": ["b"],
    }
    assert found["_meta"]["hostvars"]["b"]["hostler_mode_reason"] == unsafe("lunch")


def test_a_worker_that_is_called_as_a_group_is_a_host_all_the_same(hub, ansible, tmp_path):
    """One took the whole fleet into its own groups, or made the inventory unreadable."""
    names = ["busy", "missing", "mode_paused", "workers"]
    define(hub, {"name": "good"}, *({"name": name} for name in names))
    hub.workers["workers"]["mode"] = "paused"
    path = write(tmp_path, hub, groups={"busy": "hostler_mode == 'paused'"})
    found = listed(ansible, path)
    everybody = sorted(["good", *names])
    assert sorted(found["_meta"]["hostvars"]) == everybody
    for group in ("workers", "state_latent", "driver_local"):
        assert sorted(found[group]["hosts"]) == everybody
    for group in ("busy", "mode_paused"):
        assert found[group] == {"hosts": ["workers"]}


def test_a_worker_that_is_called_as_ansible_s_own_group_hides_no_other(hub, ansible, tmp_path):
    """Hubs refuse such names now, and have taken them before."""
    define(hub, {"name": "all"}, {"name": "good"}, {"name": "ungrouped"})
    done = ansible("ansible-inventory", "-i", write(tmp_path, hub), "--list")
    assert done.returncode == 0, done.stderr
    assert list(json.loads(done.stdout)["_meta"]["hostvars"]) == ["good"]
    for name in ("all", "ungrouped"):
        assert f"worker {name} is left out" in " ".join(done.stderr.split())


def test_groups_and_variables_of_one_s_own(hub, ansible, tmp_path):
    define(hub, {"name": "a", "properties": {"os": "bsd"}}, {"name": "b"})
    hub.workers["a"]["builds"] = ["1"]
    path = write(
        tmp_path,
        hub,
        group_by=[],
        keyed_groups=[{"key": "hostler_properties.os", "prefix": "os"}],
        groups={"busy": "hostler_builds | length > 0"},
        compose={"note": "hostler_mode ~ '!'"},
    )
    found = listed(ansible, path)
    assert found["os_bsd"]["hosts"] == ["a"]
    assert found["busy"]["hosts"] == ["a"]
    assert found["_meta"]["hostvars"]["b"]["note"] == unsafe("active!")
    assert "mode_active" not in found


def test_what_a_worker_says_is_no_template(hub, ansible, tmp_path):
    """U9, template injection: neither directly, nor composed, nor from the cache."""
    define(hub, {"name": "a"})
    evil = "{{ lookup('ansible.builtin.pipe', 'touch %s') }}" % (tmp_path / "owned")
    hub.workers["a"].update(facts={"os": evil}, last_error=evil)
    cache = {"cache": True, "cache_plugin": "ansible.builtin.jsonfile"}
    path = write(
        tmp_path,
        hub,
        compose={"composed": "hostler_facts.os"},
        cache_connection=str(tmp_path / "cache"),
        **cache,
    )
    play = tmp_path / "play.yml"
    said = ("hostler_last_error", "hostler_facts.os", "composed", "hostvars['a'].composed")
    shown = " ".join("{{ " + one + " }}" for one in said)
    task = {"ansible.builtin.debug": {"msg": shown}}
    play.write_text(json.dumps([{"hosts": "all", "gather_facts": False, "tasks": [task]}]))
    for _again in range(2):
        done = ansible("ansible-playbook", "-i", path, play)
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.count("{{ lookup") == 4
    assert not (tmp_path / "owned").exists()
    assert len(hub.requests) == 1


def test_relative_paths_count_from_the_inventory_file(hub, ansible, tmp_path):
    define(hub, {"name": "a"})
    state = tmp_path / "state"
    state.mkdir()
    (state / "hub.json").write_text(json.dumps({"url": hub.url}))
    (state / "admin.token").write_text(TOKEN)
    path = tmp_path / "here.hostler.yaml"
    path.write_text(json.dumps({"plugin": "hostler.fleet.workers", "hub_state_dir": "state"}))
    assert listed(ansible, path)["workers"]["hosts"] == ["a"]


def test_a_hub_that_is_down_is_told_once_and_clearly(ansible, tmp_path):
    path = tmp_path / "test.hostler.yml"
    options = {"hub_url": "http://127.0.0.1:1", "hub_token": "secret-4711"}
    path.write_text(json.dumps({"plugin": "hostler.fleet.workers", **options}))
    strict = {"ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "1"}
    done = ansible("ansible-inventory", "-i", path, "--list", "-vvvv", env=strict)
    assert done.returncode != 0
    assert "the hub at http://127.0.0.1:1 cannot be reached" in done.stderr
    assert "Traceback" not in done.stderr
    assert "secret-4711" not in done.stdout + done.stderr


def test_an_unknown_option_is_told(hub, ansible, tmp_path):
    done = ansible("ansible-inventory", "-i", write(tmp_path, hub, group_by=["colour"]), "--list")
    assert "colour" in done.stderr


def test_other_files_are_left_to_other_plugins(ansible, tmp_path):
    path = tmp_path / "hosts.yml"
    path.write_text("all: {hosts: {x: {}}}")
    assert listed(ansible, path)["ungrouped"]["hosts"] == ["x"]
