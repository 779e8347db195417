"""The decisions' route: filters, pages, shapes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hostler_hub.store import decisions
from hostler_hub.web.api.schemas import decisions as schemas
from hostler_hub.workers.decisions import Decision, DecisionKind

if TYPE_CHECKING:
    import httpx2
    from hub.web.harness import Api

PATH = "/api/v1/decisions"


async def fill(api: Api) -> None:
    made = [
        Decision(
            at=1_000_000_000.0 + number,
            kind=DecisionKind.START if number % 2 else DecisionKind.STOP,
            rule="idle",
            text="x",
            worker=f"w{number}",
            numbers={"n": number},
        )
        for number in range(4)
    ]
    await api.hub.store.write(decisions.append, [each.row() for each in made])


async def test_decisions_are_listed_newest_first_a_page_at_a_time(
    api: Api, operator: httpx2.AsyncClient
) -> None:
    await fill(api)
    page = schemas.DecisionPage.model_validate((await operator.get(f"{PATH}?limit=3")).json())
    assert [each.worker for each in page.items] == ["w3", "w2", "w1"]
    assert page.items[0].at == "2001-09-09T01:46:43.000Z"
    assert page.items[0].numbers == {"n": 3}
    rest = await operator.get(f"{PATH}?limit=3&after={page.next}")
    assert [each["worker"] for each in rest.json()["items"]] == ["w0"]
    assert rest.json()["next"] is None


async def test_filters(api: Api, operator: httpx2.AsyncClient) -> None:
    await fill(api)
    starts = await operator.get(f"{PATH}?kind=start&since=2001-09-09T01:46:42Z")
    assert [each["worker"] for each in starts.json()["items"]] == ["w3"]
    one = await operator.get(f"{PATH}?worker=w2")
    assert [each["kind"] for each in one.json()["items"]] == ["stop"]


async def test_what_is_no_filter_is_refused(operator: httpx2.AsyncClient) -> None:
    for query in ("kind=guess", "since=yesterday", "limit=0", "limit=501", "after=x", "colour=red"):
        answer = await operator.get(f"{PATH}?{query}")
        assert answer.status_code == 422, query
