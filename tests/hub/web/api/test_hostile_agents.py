"""Whatever an admitted agent says: it is taken within bounds, or refused with the reason, and no
list that others ask for breaks.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import sqlite3
from typing import TYPE_CHECKING, Any

import msgpack
import pytest
from hub.web.harness import Api, Site, api_on
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from hostler_agent.wire import codec
from hostler_agent.wire.extension import Handshake
from hostler_agent.wire.limits import TO_AGENT
from hostler_agent.wire.messages import AGENT_OPERATIONS
from hostler_hub.specs.caller import Role
from hostler_hub.workers.agents import facts

if TYPE_CHECKING:
    import httpx2
    from agent_peer import Peer

PASSWORD = "correct horse"
PERMANENT = {"name": "p", "driver": "permanent", "password": PASSWORD}
NUMBERS = (math.nan, math.inf, -math.inf, 2**64 - 1, -(2**63), 2**63 - 1, 2**31, 1e308, -0.0)
TEXTS = ("", "\0", "\x1b[2J", "x" * 5000, "\U0010ffff", "<script>")

scalars = st.none() | st.booleans() | st.sampled_from(NUMBERS) | st.sampled_from(TEXTS)
values = st.recursive(
    scalars | st.binary(max_size=20) | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(("stream", "offset", "data", "survivors", "x")), inner)
    ),
    max_leaves=8,
)
KEYS = ("rc", "output", "stdout", "log", "receipt", "failure_reason", "stat", "files", "\0", "x")
receipts = st.fixed_dictionaries(
    {
        "ended": values | st.just("exited"),
        "exit_code": st.sampled_from((0, 1, 2**40, None, "0", math.nan)),
        "containment": st.just("cgroup") | values,
        "pids_seen": st.sampled_from((0, -1, 2**63 - 1, "1")),
        "survivors": st.just([]) | st.lists(values, max_size=3),
        "held_output": st.just([]) | values,
        "cpu_s": st.sampled_from((0.5, math.inf, None)),
    }
)
outputs = st.fixed_dictionaries(
    {
        "stream": st.sampled_from(("stdout", "s" * 1000, "\0", 5)),
        "offset": st.sampled_from((0, 1, 2**40, 2**63 - 1, 2**64 - 1, -1, math.nan)),
        "data": st.binary(max_size=20) | values,
    }
)
pairs = st.one_of(
    st.tuples(st.sampled_from(KEYS), values),
    st.tuples(st.just("receipt"), receipts),
    st.tuples(st.just("output"), outputs),
)
# Without "complete", after which the hub knows the command no more.
OPERATIONS = ["update"] * 6 + sorted(
    {*AGENT_OPERATIONS, "keepalive", "nothing", "\0"} - {"complete"}
)
requests = st.fixed_dictionaries(
    {"op": st.sampled_from(OPERATIONS)},
    optional={
        "args": st.lists(pairs, max_size=4) | values,
        "access_time": values,
        "modified_time": values,
        "length": values,
    },
)


class Liar:
    """The agent of a worker that runs a build's only step. It sends frames of its own making and
    keeps the hub's answers by their numbers.
    """

    def __init__(self, peer: Peer, build: str) -> None:
        self.build = build
        self.peer = peer
        self.answers: dict[int, dict[str, Any]] = {}
        self._command = f"{build}.1.0"
        self._numbers = itertools.count(1_000_000)
        self._answered = asyncio.Event()
        self._honest = peer._answer
        peer._answer = self._hear  # type: ignore[method-assign]

    def _hear(self, received: bytes) -> None:
        message = codec.decode(received, TO_AGENT)
        if message["op"] == "response":
            self.answers[message["seq_number"]] = message
            self._answered.set()
        self._honest(received)

    def say(self, message: dict[str, Any]) -> int:
        number = next(self._numbers)
        whole = {"seq_number": number, "command_id": self._command, **message}
        self.send(msgpack.packb(whole, use_bin_type=True))
        return number

    def send(self, data: bytes) -> None:
        self.peer.incoming.put_nowait({"type": "websocket.receive", "bytes": data})

    async def answer(self, number: int) -> dict[str, Any]:
        """The answer to the request with that number; fails if the hub hangs up instead."""
        async with asyncio.timeout(60):
            while number not in self.answers:
                assert not self.peer.closed.is_set(), "the hub hung up"
                self._answered.clear()
                await self._answered.wait()
        return self.answers[number]


async def liar(api: Api, client: httpx2.AsyncClient, name: str = "w") -> Liar:
    definition = {"name": name, "driver": "fake"}
    defined = await client.post("/api/v1/workers/define", json={"workers": [definition]})
    assert defined.status_code == 200, defined.text
    step = {"name": "s", "command": ["true"]}
    submitted = await client.post(
        "/api/v1/builds", json={"steps": [step], "requires": {"worker": name}}
    )
    assert submitted.status_code == 201, submitted.text
    await api.until(f"/workers/{name}", state="substantiating")
    peer = await api.attach(name, completes=False)
    await asyncio.wait_for(peer.was_started.wait(), 60)
    return Liar(peer, submitted.json()["id"])


async def assert_shown(api: Api, client: httpx2.AsyncClient, build: str, worker: str) -> None:
    """Everything that lists or shows the worker and its build can be read, as JSON and as pages."""
    shown = ["/workers", f"/workers/{worker}", f"/workers/{worker}/events", "/builds"]
    for path in (*shown, f"/builds/{build}", "/decisions", "/incidents", "/groups"):
        answer = await client.get(f"/api/v1{path}")
        assert answer.status_code == 200, (path, answer.text)
        json.loads(answer.text, parse_constant=pytest.fail)
    browser = api.client()
    form = {"token": await api.token(Role.VIEWER)}
    await browser.post("/login", data=form, headers={"Origin": "http://hub.example"})
    for path in ("/", f"/workers/{worker}", "/builds", f"/builds/{build}"):
        assert (await browser.get(path)).status_code == 200, path


async def assert_ended(client: httpx2.AsyncClient, build: str) -> None:
    view = (await client.get(f"/api/v1/builds/{build}?wait_s=60")).json()
    (step,) = view["steps"]
    assert view["state"] in {"success", "failure", "exception"}
    assert step["rc"] is None or -(2**31) <= step["rc"] < 2**32


@settings(
    max_examples=3,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],  # an example is long; the answers name the one that is wrong
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(requests, min_size=40, max_size=60))
def test_U4_whatever_an_agent_sends_is_bounded_or_refused_with_the_reason(
    site: Site, sent: list[dict[str, Any]]
) -> None:
    asyncio.run(_lie(site, sent))


_workers = itertools.count()


async def _lie(site: Site, sent: list[dict[str, Any]]) -> None:
    async with api_on(site) as api:
        client = api.client(await api.token(Role.ADMIN))
        worker = f"w{next(_workers)}"
        agent = await liar(api, client, worker)
        numbers = [agent.say(message) for message in (*sent, {"op": "complete", "args": 5})]
        # Refusals are sent in order: all that came before this one has been taken.
        assert (await agent.answer(agent.say({"op": "nothing"})))["is_exception"]
        for number in numbers:
            answer = agent.answers.get(number, {"result": None})
            assert not answer.get("is_exception") or answer["result"], "it is not told why"
        await assert_shown(api, client, agent.build, worker)
        agent.say({"op": "update", "args": [["rc", 0]]})
        agent.say({"op": "complete", "args": None})
        await assert_ended(client, agent.build)
        await assert_shown(api, client, agent.build, worker)


@pytest.mark.parametrize("number", [math.nan, math.inf, 2**64 - 1], ids=str)
async def test_U4_one_bad_number_refuses_its_own_message_alone(
    api: Api, operator: httpx2.AsyncClient, number: float
) -> None:
    agent = await liar(api, operator)
    refused = await agent.answer(
        agent.say({"op": "update", "args": [["stdout", ["said\n", [4], [0.0]]], ["rc", number]]})
    )
    assert refused["is_exception"]
    assert "not finite" in refused["result"] or "64 bits" in refused["result"]
    taken = agent.say({"op": "update", "args": [["stdout", ["taken\n", [5], [0.0]]]]})
    assert "is_exception" not in await agent.answer(taken)
    log = await operator.get(f"/api/v1/builds/{agent.build}/steps/0/log")
    assert log.content == b"taken\n"


@pytest.mark.parametrize(
    ("pair", "reason"),
    [
        (["rc", 2**40], "exit code"),
        (["rc", 2**32], "exit code"),
        (["rc", -(2**31) - 1], "exit code"),
        (["rc", "0"], "exit code"),
        (["rc", True], "exit code"),
        (["rc", 1.0], "exit code"),
        (["output", {"stream": "stdout", "offset": 2**62, "data": b"x"}], "exceed"),
        (["output", {"stream": "stdout", "offset": 7, "data": b"x"}], "send it again"),
    ],
    ids=str,
)
async def test_U4_values_that_are_none_of_their_field_are_refused(
    api: Api, operator: httpx2.AsyncClient, pair: list[Any], reason: str
) -> None:
    agent = await liar(api, operator)
    said = [["stdout", ["said\n", [4], [0.0]]], pair]
    answer = await agent.answer(agent.say({"op": "update", "args": said}))
    if reason == "exceed":  # beyond what is stored of a log nothing is
        assert "is_exception" not in answer
        return
    assert reason in answer["result"]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\xc1", 1002),
        (b"\x81\xa2op\xa2\xed\xa0", 1002),
        (msgpack.packb({"op": "update", "seq_number": 7, "x": [[[[]]]] * 30_000}), 1009),
        (msgpack.packb({"op": "update", "seq_number": 2**64 - 1}), 1002),
        (msgpack.packb({"op": "update"}), 1002),
        (msgpack.packb([1]), 1002),
    ],
    ids=["no message", "surrogate", "items", "number", "no number", "list"],
)
async def test_U4_what_is_no_message_ends_the_connection_with_the_reason(
    api: Api, operator: httpx2.AsyncClient, data: bytes, code: int
) -> None:
    agent = await liar(api, operator)
    agent.send(data)
    await asyncio.wait_for(agent.peer.closed.wait(), 60)
    assert agent.peer.close_code == code
    await api.until("/workers/w", attached=False)
    await assert_shown(api, operator, agent.build, "w")


HUGE = {f"{number:04}" * 100: "x" * 10_000 for number in range(90)}


@pytest.mark.parametrize(
    "told",
    [
        HUGE,
        {"deep": [[[[[[[["x"]]]]]]]]},
        {"nul": "\0", "esc": "\x1b[2J", "\0": "\0", "": ""},
        {"large": 2**63 - 1, "small": -(2**63), "float": 1e308, "flag": True, "none": None},
    ],
    ids=["huge", "deep", "control characters", "numbers"],
)
async def test_V15_facts_are_kept_within_bounds(
    api: Api, operator: httpx2.AsyncClient, told: dict[str, Any]
) -> None:
    await operator.post("/api/v1/workers/define", json={"workers": [PERMANENT]})
    await api.come(Handshake("p", PASSWORD, "s" * 43), facts=told)
    view = await api.until("/workers/p", attached=True)
    assert len(view["facts"]) <= facts.FACTS + len(facts.OS_KEYS)
    assert len(json.dumps(view["facts"])) < 2 * facts.FACTS_SIZE
    assert all(not isinstance(value, (list, dict)) for value in view["facts"].values())


async def test_U4_facts_with_a_number_that_is_none_are_refused_and_not_stored(
    api: Api, operator: httpx2.AsyncClient
) -> None:
    await operator.post("/api/v1/workers/define", json={"workers": [PERMANENT]})
    peer = await api.come(Handshake("p", PASSWORD, "s" * 43), facts={"load": math.nan})
    await asyncio.wait_for(peer.closed.wait(), 60)
    assert peer.close_code == 1002
    assert "not finite" in peer.close_reason
    view = (await operator.get("/api/v1/workers/p")).json()
    assert "load" not in view["facts"]
    assert not view["attached"]


async def test_old_rows_with_such_values_break_no_list(site: Site) -> None:
    async with api_on(site) as api:
        client = api.client(await api.token(Role.ADMIN))
        build = (await liar(api, client)).build
    bad = '{"nan": NaN, "infinite": -Infinity, "huge": 1e999, "integer": 18446744073709551615}'
    receipt = bad[:-1] + ', "ended": "exited", "survivors": [{"pid": NaN}]}'
    with sqlite3.connect(site.settings.state_dir / "hub.sqlite3") as rows:
        rows.execute("UPDATE workers SET facts = ?", (bad,))
        rows.execute("UPDATE steps SET rc = ?, receipt = ?, result = ?", (2**63 - 1, receipt, bad))
    rows.close()
    async with api_on(site) as api:
        client = api.client(await api.token(Role.ADMIN))
        await assert_shown(api, client, build, "w")
