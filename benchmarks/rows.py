"""One figure: what it is, what it is compared with, what it should be."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Literal


@dataclass(frozen=True)
class Reference:
    """What a figure is compared with, measured in the same run: a peer, or what must be paid."""

    name: str
    rounds: Sequence[float]

    @property
    def value(self) -> float:
        return median(self.rounds)


@dataclass(frozen=True)
class Goal:
    """A bound on the figure itself or on its ratio to the reference."""

    of: Literal["value", "ratio"]
    bound: Literal["at least", "at most"]
    limit: float

    def is_met(self, value: float, ratio: float | None) -> bool:
        figure = value if self.of == "value" else ratio
        if figure is None:
            return False
        return figure >= self.limit if self.bound == "at least" else figure <= self.limit

    def __str__(self) -> str:
        sign = ">=" if self.bound == "at least" else "<="
        return f"{sign} {self.limit:g}{'x' if self.of == 'ratio' else ''}"


@dataclass(frozen=True)
class Row:
    """A figure, as the median of its rounds. ``ratio`` is the figure over the reference's."""

    name: str
    unit: str
    rounds: Sequence[float]
    goal: Goal
    reference: Reference | None = None

    @property
    def value(self) -> float:
        return median(self.rounds)

    @property
    def ratio(self) -> float | None:
        if self.reference is None or self.reference.value == 0:
            return None
        return self.value / self.reference.value

    @property
    def met(self) -> bool:
        return self.goal.is_met(self.value, self.ratio)

    def as_json(self) -> dict[str, Any]:
        reference = self.reference
        return {
            "name": self.name,
            "value": _plain(self.value),
            "unit": self.unit,
            "peer_or_floor": reference
            and {
                "name": reference.name,
                "value": _plain(reference.value),
                "rounds": [_plain(each) for each in reference.rounds],
            },
            "ratio": _plain(self.ratio),
            "goal": {"of": self.goal.of, "bound": self.goal.bound, "limit": self.goal.limit},
            "met": self.met,
            "rounds": [_plain(each) for each in self.rounds],
        }


@dataclass(frozen=True)
class Plan:
    """How much to measure."""

    rounds: int = 5
    builds: int = 300  # of ours in a round; the peer gets a tenth, being that much slower
    workers: int = 1000
    idle_s: float = 10.0
    budget_s: float = 100.0  # of one benchmark: no round begins after it

    def each_round(self, most: int | None = None) -> Iterator[int]:
        """Numbers of rounds, at least one, until there are enough or the budget is spent."""
        ends_at = time.monotonic() + self.budget_s
        for number in range(min(self.rounds, most or self.rounds)):
            if number and time.monotonic() > ends_at:
                return
            yield number


QUICK = Plan(rounds=1, builds=40, workers=100, idle_s=2.0)


@dataclass
class Samples:
    """Figures of several rounds, by name."""

    by_name: dict[str, list[float]] = field(default_factory=dict)

    def add(self, name: str, value: float) -> None:
        self.by_name.setdefault(name, []).append(value)

    def __getitem__(self, name: str) -> list[float]:
        return self.by_name[name]


def _plain(value: float | None) -> float | None:
    """Four digits: more would pretend."""
    return None if value is None else float(f"{value:.4g}")
