"""The groups' routes, from the request to the group as REST shows it afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hostler_hub.web.api.schemas import groups as schemas

if TYPE_CHECKING:
    import httpx2

GROUPS = "/api/v1/groups"
FARM = {"name": "farm", "max_instances": 1, "description": "the build farm"}


async def define(client: httpx2.AsyncClient, *groups: dict[str, Any], dry_run: bool = False) -> Any:
    answer = await client.post(f"{GROUPS}/define", json={"groups": groups, "dry_run": dry_run})
    assert answer.is_success, answer.text
    return schemas.DefineGroupResults.model_validate(answer.json()).results


async def listed(client: httpx2.AsyncClient) -> dict[str, schemas.GroupView]:
    answer = await client.get(GROUPS)
    return {each.name: each for each in schemas.GroupList.model_validate(answer.json()).items}


async def work_in(client: httpx2.AsyncClient, group: str, *names: str) -> None:
    """Define workers of a group."""
    workers = [{"name": name, "driver": "fake", "group": group} for name in names]
    answer = await client.post("/api/v1/workers/define", json={"workers": workers})
    assert answer.is_success, answer.text


async def test_a_group_is_defined_changed_and_removed(operator: httpx2.AsyncClient) -> None:
    (dry,) = await define(operator, FARM, dry_run=True)
    assert (dry.created, dry.changed, dry.before) == (True, True, None)
    assert await listed(operator) == {}
    assert (await operator.get(f"{GROUPS}/farm")).status_code == 404
    await define(operator, FARM)
    (same,) = await define(operator, FARM)
    assert not same.changed
    (changed,) = await define(operator, {**FARM, "max_instances": 2})
    assert (changed.created, changed.changed, changed.after.max_instances) == (False, True, 2)
    view = schemas.GroupView.model_validate((await operator.get(f"{GROUPS}/farm")).json())
    assert view.definition == changed.after
    for dry_run, left in ((True, {"farm"}), (False, set())):
        body = {"names": ["farm", "nowhere"], "dry_run": dry_run}
        answer = await operator.post(f"{GROUPS}/remove", json=body)
        results = schemas.RemoveGroupResults.model_validate(answer.json()).results
        assert [(each.name, each.changed) for each in results] == [
            ("farm", True),
            ("nowhere", False),
        ]
        assert set(await listed(operator)) == left


async def test_a_group_that_only_workers_name_is_listed_too(operator: httpx2.AsyncClient) -> None:
    await work_in(operator, "farm", "a", "b")
    assert [(each.definition, each.workers) for each in (await listed(operator)).values()] == [
        (None, 2)
    ]
    await define(operator, FARM)
    await operator.post("/api/v1/workers/substantiate", json={"names": ["a"]})
    farm = (await listed(operator))["farm"]
    assert (farm.workers, farm.instances, farm.starting) == (2, 1, 1)
    assert (farm.startable.starts, farm.startable.rule) == (0, "max_instances")


async def test_one_bad_definition_defines_none(operator: httpx2.AsyncClient) -> None:
    bad = {"name": "other", "min_idle": -1}
    answer = await operator.post(f"{GROUPS}/define", json={"groups": [FARM, bad]})
    assert (answer.status_code, answer.json()["pointer"]) == (422, "/groups/1/min_idle")
    assert await listed(operator) == {}
