"""How much of the hub's disk each submitter may use for stored files, artifacts and logs.

Theory of operation. What is used is the sum of the sizes in the store's rows: it is counted there
when the hub starts, and kept up to date in memory from then on, so that nothing that a crash leaves
behind is counted for ever. Space is taken before bytes are written, and given back when they do not
become a row; so transfers that run at the same time cannot exceed a limit together. The threads of
transfers and the event loop share the counts under a lock.

A submitter at their own limit stops nobody else. The reserve is for the database: of files and
artifacts nothing is taken that would leave less of the disk free. Logs are in the database, and
agents keep what it cannot take, so nothing of them is given up for a disk that is full for a while.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from hostler_hub.builds.errors import QuotaReached
from hostler_hub.builds.views import StorageKindView, StorageView, SubmitterStorageView
from hostler_hub.runtime.settings import Settings
from hostler_hub.runtime.sizes import Disk, parse_size, show_size

SHOWN_SUBMITTERS = 100


class Kind(StrEnum):
    """What takes up space."""

    FILES = "files"
    ARTIFACTS = "artifacts"
    LOGS = "logs"


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one kind, in bytes; None is no limit."""

    per_submitter: int | None = None
    in_all: int | None = None


class Quotas:
    """Counts what submitters use, and refuses more than the limits allow.

    ``free_bytes`` is asked what the disk has left, of which ``reserve_bytes`` stay free. With the
    defaults there are no limits.
    """

    def __init__(
        self,
        limits: Mapping[Kind, Limits] | None = None,
        free_bytes: Callable[[], int] = lambda: 2**63,
        reserve_bytes: int = 0,
    ) -> None:
        self._limits = {kind: (limits or {}).get(kind, Limits()) for kind in Kind}
        self._free_bytes = free_bytes
        self._reserve_bytes = reserve_bytes
        self._lock = threading.Lock()
        self._used: dict[Kind, Counter[str]] = {kind: Counter() for kind in Kind}
        self._in_all: Counter[Kind] = Counter()

    @classmethod
    def from_settings(cls, settings: Settings) -> Quotas:
        """The quotas that the settings ask for, on the disk of the state directory."""
        disk = Disk(settings.state_dir)
        whole = disk.whole_bytes()

        def size(name: str) -> int | None:
            return parse_size(getattr(settings, name), whole)

        limits = {
            kind: Limits(
                size(f"quota_{kind.value}_per_submitter"), size(f"quota_{kind.value}_in_all")
            )
            for kind in Kind
        }
        return cls(limits, disk.free_bytes, size("disk_reserve") or 0)

    def account(self, submitter: str) -> Account:
        """The quota of one submitter, by their token's name."""
        return Account(self, submitter)

    def count(self, kind: Kind, used: Iterable[tuple[str, int]]) -> None:
        """Count what the store has, as pairs of submitter and bytes, whatever the limits say."""
        for submitter, size_bytes in used:
            self._add(kind, submitter, size_bytes)

    def take(self, kind: Kind, submitter: str, size_bytes: int) -> None:
        """Take space for bytes that are about to be written. Raises QuotaReached."""
        with self._lock:
            if (reached := self._why_not(kind, submitter, size_bytes)) is not None:
                raise reached
            self._used[kind][submitter] += size_bytes
            self._in_all[kind] += size_bytes

    def take_for_log(self, submitter: str, size_bytes: int) -> tuple[int, str]:
        """Take as much for a log as there is, at most ``size_bytes``. Returns how much that is, and
        why it is not all.
        """
        kind = Kind.LOGS
        with self._lock:
            reached = self._why_not(kind, submitter, size_bytes)
            room = size_bytes if reached is None else self._room(kind, submitter)
            self._used[kind][submitter] += room
            self._in_all[kind] += room
        return room, str(reached or "")

    def give_back(self, kind: Kind, submitter: str, size_bytes: int) -> None:
        """Give back space whose bytes were not stored, or are removed."""
        self._add(kind, submitter, -size_bytes)

    def check_size(self, kind: Kind, submitter: str, size_bytes: int) -> None:
        """Raise QuotaReached if so much could not be taken now."""
        with self._lock:
            if (reached := self._why_not(kind, submitter, size_bytes)) is not None:
                raise reached

    def view(self) -> StorageView:
        """What is used and allowed, with the submitters who use most."""
        with self._lock:
            used = {kind: dict(self._used[kind]) for kind in Kind}
            in_all = dict(self._in_all)
        names = {name for of_kind in used.values() for name, size in of_kind.items() if size}
        totals = {name: sum(of_kind.get(name, 0) for of_kind in used.values()) for name in names}
        first = sorted(names, key=lambda name: (-totals[name], name))[:SHOWN_SUBMITTERS]
        return StorageView(
            **{
                kind.value: StorageKindView(
                    used_bytes=in_all.get(kind, 0),
                    limit_bytes=self._limits[kind].in_all,
                    submitter_limit_bytes=self._limits[kind].per_submitter,
                )
                for kind in Kind
            },
            submitters=[
                SubmitterStorageView(
                    name=name,
                    files_bytes=used[Kind.FILES].get(name, 0),
                    artifacts_bytes=used[Kind.ARTIFACTS].get(name, 0),
                    logs_bytes=used[Kind.LOGS].get(name, 0),
                )
                for name in first
            ],
            disk_free_bytes=self._free_bytes(),
            disk_reserve_bytes=self._reserve_bytes,
        )

    # --- under the lock ---------------------------------------------------------------------------

    def _why_not(self, kind: Kind, submitter: str, size_bytes: int) -> QuotaReached | None:
        whose = (f"the {kind} of {submitter}", f"the {kind} of all submitters")
        for (limit, used), what in zip(self._limits_of(kind, submitter), whose, strict=True):
            if limit is not None and used + size_bytes > limit:
                text = f"{what} may have {show_size(limit)}, and have {show_size(used)} already"
                return QuotaReached(text, is_too_large=size_bytes > limit)
        is_checked = size_bytes > 0 and kind is not Kind.LOGS
        if is_checked and self._free_bytes() - size_bytes < self._reserve_bytes:
            kept = show_size(self._reserve_bytes)
            return QuotaReached(f"the hub's disk is nearly full: {kept} are kept free on it")
        return None

    def _room(self, kind: Kind, submitter: str) -> int:
        """How much there is for a submitter who wants more than that."""
        limits = self._limits_of(kind, submitter)
        return max(0, min(limit - used for limit, used in limits if limit is not None))

    def _limits_of(self, kind: Kind, submitter: str) -> tuple[tuple[int | None, int], ...]:
        limits = self._limits[kind]
        return (
            (limits.per_submitter, self._used[kind][submitter]),
            (limits.in_all, self._in_all[kind]),
        )

    def _add(self, kind: Kind, submitter: str, size_bytes: int) -> None:
        with self._lock:
            self._used[kind][submitter] += size_bytes
            self._in_all[kind] += size_bytes


@dataclass(frozen=True, slots=True)
class Account:
    """The quota of one submitter."""

    quotas: Quotas
    submitter: str

    def reservation(self, kind: Kind) -> Reservation:
        return Reservation(self, kind)

    def give_back(self, kind: Kind, size_bytes: int) -> None:
        """Give back the space of what is removed."""
        self.quotas.give_back(kind, self.submitter, size_bytes)


class Reservation:
    """The space that one transfer has taken, until its bytes are stored or it is given up. Used by
    one thread at a time.
    """

    def __init__(self, account: Account, kind: Kind) -> None:
        self.account = account
        self._kind = kind
        self._size_bytes = 0

    def check(self, size_bytes: int) -> None:
        """Raise QuotaReached if there is no room for so much, as it was announced."""
        self.account.quotas.check_size(self._kind, self.account.submitter, size_bytes)

    def take(self, size_bytes: int) -> None:
        """Take space for the next bytes. Raises QuotaReached."""
        self.account.quotas.take(self._kind, self.account.submitter, size_bytes)
        self._size_bytes += size_bytes

    def keep(self) -> None:
        """The bytes are stored: they are counted until somebody removes them."""
        self._size_bytes = 0

    def give_back(self) -> None:
        """Give back what was taken and not kept. A second call changes nothing."""
        size_bytes, self._size_bytes = self._size_bytes, 0
        self.account.give_back(self._kind, size_bytes)
