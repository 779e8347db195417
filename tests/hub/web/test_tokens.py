"""API tokens (U6): what is stored, what is refused, and what a cache must not keep."""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
import stat
from typing import TYPE_CHECKING

import pytest

from hostler_hub.errors import Conflict, InvalidRequest, NotFound, TooManyAttempts, Unauthenticated
from hostler_hub.runtime import login_throttle
from hostler_hub.runtime.virtual_clock import VirtualClock
from hostler_hub.specs.caller import Caller, Role
from hostler_hub.store.engine import Store
from hostler_hub.web import tokens as web_tokens
from hostler_hub.web.tokens import Tokens

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

HERE = "192.0.2.1"


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
async def store(sqlite_template: Path, tmp_path: Path) -> AsyncIterator[Store]:
    shutil.copy(sqlite_template, tmp_path / "hub.sqlite3")
    async with Store(f"sqlite:///{tmp_path / 'hub.sqlite3'}") as opened:
        yield opened


@pytest.fixture
def tokens(store: Store, clock: VirtualClock) -> Tokens:
    return Tokens(store, clock)


def test_roles_include_the_smaller_ones() -> None:
    assert [str(role) for role in Role] == ["viewer", "submitter", "operator", "admin"]
    for index, role in enumerate(Role):
        assert [role.covers(other) for other in Role] == [n <= index for n in range(4)]


async def test_a_token_is_known_and_its_secret_is_not_stored(
    tokens: Tokens, tmp_path: Path
) -> None:
    token = await tokens.create("ci", Role.SUBMITTER, by="me")
    assert len(token) == len("hst_") + 12 + 1 + 43
    assert await tokens.verify(token, HERE) == Caller("ci", Role.SUBMITTER)
    with sqlite3.connect(tmp_path / "hub.sqlite3") as connection:
        (row,) = connection.execute("SELECT lookup, token_hash FROM tokens").fetchall()
    connection.close()
    assert row == (token[4:16], hashlib.sha256(token.encode()).hexdigest())


async def test_wrong_tokens_are_refused_in_the_same_words(tokens: Tokens) -> None:
    token = await tokens.create("ci", Role.VIEWER, by="me")
    other = await tokens.create("other", Role.ADMIN, by="me")
    said = set()
    for wrong in (
        token[:-1],
        token[:17] + other[17:],
        "hst_" + "0" * 12 + token[16:],
        "",
        "\ud800",
    ):
        with pytest.raises(Unauthenticated) as refusal:
            await tokens.verify(wrong, HERE)
        said.add(refusal.value.detail)
    assert len(said) == 1


async def test_an_unknown_id_does_the_same_work(
    tokens: Tokens, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also against a cached token: a wrong secret is looked up like an unknown id."""
    token = await tokens.create("ci", Role.VIEWER, by="me")
    await tokens.verify(token, HERE)
    work: list[str] = []
    read, compare = store.read, web_tokens.hmac.compare_digest

    async def counted_read(fn, *args):  # type: ignore[no-untyped-def]
        work.append("read")
        return await read(fn, *args)

    def counted_compare(a: str, b: str) -> bool:
        work.append(f"compare {len(a)} {len(b)}")
        return compare(a, b)

    monkeypatch.setattr(store, "read", counted_read)
    monkeypatch.setattr(web_tokens.hmac, "compare_digest", counted_compare)
    done = []
    for wrong in (token[:-2] + "__", "hst_" + "0" * 12 + token[16:]):
        work.clear()
        with pytest.raises(Unauthenticated):
            await tokens.verify(wrong, HERE)
        done.append((work.count("read"), work[-1]))
    assert done == [(1, "compare 64 64")] * 2


async def test_expiry_counts_for_cached_tokens_too(tokens: Tokens, clock: VirtualClock) -> None:
    token = await tokens.create("ci", Role.VIEWER, by="me", expires_in_s=30)
    await tokens.verify(token, HERE)
    clock.advance(29)
    await tokens.verify(token, HERE)
    clock.advance(1)
    with pytest.raises(Unauthenticated):
        await tokens.verify(token, HERE)


async def test_verifying_again_does_not_ask_the_store(
    tokens: Tokens, store: Store, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = await tokens.create("ci", Role.VIEWER, by="me")
    await tokens.verify(token, HERE)
    reads = 0
    read = store.read

    async def counted(fn, *args):  # type: ignore[no-untyped-def]
        nonlocal reads
        reads += 1
        return await read(fn, *args)

    monkeypatch.setattr(store, "read", counted)
    await tokens.verify(token, HERE)
    assert reads == 0
    clock.advance(web_tokens.CACHE_S + 1)
    await tokens.verify(token, HERE)
    assert reads == 1


async def test_a_revoked_token_is_forgotten_at_once(tokens: Tokens) -> None:
    token = await tokens.create("ci", Role.VIEWER, by="me")
    await tokens.verify(token, HERE)
    await tokens.delete("ci")
    with pytest.raises(Unauthenticated):
        await tokens.verify(token, HERE)
    with pytest.raises(NotFound):
        await tokens.delete("ci")


async def test_a_read_under_way_does_not_bring_a_revoked_token_back(
    tokens: Tokens, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row was read before the revocation, the answer comes after it."""
    token = await tokens.create("ci", Role.VIEWER, by="me")
    read = store.read

    async def slow(fn, *args):  # type: ignore[no-untyped-def]
        row = await read(fn, *args)
        await tokens.delete("ci")
        return row

    monkeypatch.setattr(store, "read", slow)
    await tokens.verify(token, HERE)  # this one was right when it was read
    monkeypatch.setattr(store, "read", read)
    with pytest.raises(Unauthenticated):
        await tokens.verify(token, HERE)


async def test_ten_failures_a_minute_per_client_and_id(tokens: Tokens, clock: VirtualClock) -> None:
    token = await tokens.create("ci", Role.VIEWER, by="me")
    wrong = token[:-2] + "__"
    for _ in range(login_throttle.FAILURES):
        with pytest.raises(Unauthenticated):
            await tokens.verify(wrong, HERE)
    with pytest.raises(TooManyAttempts) as refusal:
        await tokens.verify(wrong, HERE)
    assert refusal.value.headers() == {"Retry-After": "60"}
    assert await tokens.verify(token, HERE)  # nobody else at the address is locked out
    with pytest.raises(Unauthenticated):
        await tokens.verify(wrong, "192.0.2.2")
    clock.advance(60)
    with pytest.raises(Unauthenticated):
        await tokens.verify(wrong, HERE)


async def test_V19_what_a_client_guesses_keeps_no_token_of_its_address_out(tokens: Tokens) -> None:
    token = await tokens.create("ci", Role.VIEWER, by="me")
    for n in range(2 * login_throttle.FAILURES):
        with pytest.raises((Unauthenticated, TooManyAttempts)):
            await tokens.verify(f"hst_{n:012}_{'x' * 43}", HERE)
    tokens._cache.clear()
    assert await tokens.verify(token, HERE)


async def test_failures_and_cache_are_bounded(
    tokens: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    """V15: whatever strangers send, the hub remembers a bounded part of it."""
    monkeypatch.setattr(login_throttle, "ENTRIES", 3)
    monkeypatch.setattr(web_tokens, "CACHE_ENTRIES", 2)
    for n in range(5):
        with pytest.raises(Unauthenticated):
            await tokens.verify("x", f"192.0.2.{n}")
        token = await tokens.create(f"t-{n}", Role.VIEWER, by="me")
        await tokens.verify(token, HERE)
    assert len(tokens._throttle) == 3
    assert len(tokens._cache) == 2


@pytest.mark.parametrize("name", ["", "a b", "-a", "a-", "a" * 64, "a\n", "admin", "ä"])
async def test_names(tokens: Tokens, name: str) -> None:
    with pytest.raises(InvalidRequest):
        await tokens.create(name, Role.VIEWER, by="me")


async def test_a_name_is_used_once_and_a_life_is_bounded(tokens: Tokens) -> None:
    await tokens.create("ci", Role.VIEWER, by="me")
    with pytest.raises(Conflict):
        await tokens.create("ci", Role.ADMIN, by="me")
    for life_s in (0, -1, web_tokens.MAX_LIFE_S + 1, float("nan")):
        with pytest.raises(InvalidRequest):
            await tokens.create("other", Role.VIEWER, by="me", expires_in_s=life_s)


class TestAdmin:
    """The administrator's token file in the state directory."""

    async def test_it_is_made_once_and_private(self, tokens: Tokens, tmp_path: Path) -> None:
        await tokens.ensure_admin(tmp_path)
        file = tmp_path / "admin.token"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        token = file.read_text()
        assert await tokens.verify(token.strip(), HERE) == Caller("admin", Role.ADMIN)
        file.chmod(0o644)
        await tokens.ensure_admin(tmp_path)
        assert file.read_text() == token
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert sorted(path.name for path in tmp_path.glob("*admin*")) == ["admin.token"]

    async def test_a_lost_file_makes_a_new_token_and_revokes_the_old(
        self, tokens: Tokens, tmp_path: Path
    ) -> None:
        await tokens.ensure_admin(tmp_path)
        old = (tmp_path / "admin.token").read_text().strip()
        await tokens.verify(old, HERE)
        (tmp_path / "admin.token").unlink()
        await tokens.ensure_admin(tmp_path)
        new = (tmp_path / "admin.token").read_text().strip()
        assert await tokens.verify(new, HERE)
        with pytest.raises(Unauthenticated):
            await tokens.verify(old, HERE)

    @pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"hst_nonsense"])
    async def test_a_broken_file_is_replaced(
        self, tokens: Tokens, tmp_path: Path, content: bytes
    ) -> None:
        (tmp_path / "admin.token").write_bytes(content)
        await tokens.ensure_admin(tmp_path)
        token = (tmp_path / "admin.token").read_text().strip()
        assert (await tokens.verify(token, HERE)).role is Role.ADMIN

    async def test_another_tokens_text_in_the_file_does_not_count(
        self, tokens: Tokens, tmp_path: Path
    ) -> None:
        viewer = await tokens.create("ci", Role.VIEWER, by="me")
        (tmp_path / "admin.token").write_text(viewer)
        await tokens.ensure_admin(tmp_path)
        assert (tmp_path / "admin.token").read_text().strip() != viewer
