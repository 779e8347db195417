"""Configurations that no driver can use, and what must become of each: one error of its own.

Users write options by hand, generate them, and copy them from other tools, so every option of a
driver gets every value that its tools accept elsewhere or choke on. What the definition's model
refuses is refused with one sentence; what it lets through is carried out as far as it goes, and
whatever the driver's libraries raise on the way has to be translated.

Subclass `MalformedConfigurations` in a test module; give it the fixtures `driver` and `options`.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import pytest
from conformance.drivers import ref_of, spec_of

from hostler_hub.drivers.contract import Driver
from hostler_hub.drivers.errors import DriverError, OptionsRefused
from hostler_hub.drivers.registry import check_options

ENOUGH = 200
AT_ONCE = 16
DEADLINE_S = 60.0

VALUES: tuple[Any, ...] = (
    *(None, True, 0, -1, 2**63, math.inf, math.nan),
    *("", " ", "\0", "a\nb", "a\0b", "\ud800", "é" * 300, "x" * 5000, "-x", "--", "~", "/", ".."),
    *("%s{0}$HOME`id`", "a b", "a:b:c:d", "a=b", ":", "::", "@", "[::1", "http://[", "//"),
    *(
        "/dev/null",
        "/nowhere/at/all",
        "C:\\nowhere",
        "unix:///nowhere",
        "tcp://[::1:1",
        "é.example",
    ),
    *(
        "0",
        "-1",
        "1e9",
        "null",
        "true",
        "[]",
        "{}",
        "'",
        '"',
        "\\",
        "\t",
        "%",
        "%%",
        "\x7f",
        "\u202e",
    ),
    *([], [None], [""], ["\0"], ["\ud800"], [[]], [{}], ["a", 1], ["x" * 5000]),
    *({}, {"": ""}, {"a": None}, {"a": "\0"}, {"\0": "a"}, {"a=b": "c"}, {"a": "\ud800"}),
    *({"\ud800": "a"}, {"a": {"b": []}}, {"file": "nowhere"}, {"file": "../x"}, {"env": "PATH"}),
    *({"a": 1}, {"a": True}, {" ": " "}, {"a": "b" * 200_000}, {"PATH": ""}, {"-": "-"}),
)


@pytest.mark.timeout(120)  # hundreds of configurations, of which many are carried out
class MalformedConfigurations:
    """Every option of one driver with every one of these values."""

    more: ClassVar[Mapping[str, Sequence[Any]]] = {}
    """Further values by name of option: those that only this driver's tools know."""
    most_carried_out: ClassVar[int] = 80
    """How many of those that the model lets through are carried out, spread over all of them."""

    async def test_no_exception_of_a_library_escapes_a_malformed_configuration(
        self, driver: Driver, options: Mapping[str, Any]
    ) -> None:
        configurations = list(self._configurations(type(driver)))
        assert len(configurations) >= ENOUGH
        escaped, let_through = [], []
        for name, value in configurations:
            failure = _refusal(driver, {**options, name: value})
            if failure is None:
                let_through.append((name, value))
            elif failure:
                escaped.append(f"{name}={value!r:.80}: {failure}")
        turns = asyncio.Semaphore(AT_ONCE)

        async def carry_out(name: str, value: Any) -> list[str]:
            async with turns:
                failures = await _failures(driver, {**options, name: value})
            return [f"{name}={value!r:.80}: {each}" for each in failures]

        stride = math.ceil(len(let_through) / self.most_carried_out)
        found = await asyncio.gather(*(carry_out(*each) for each in let_through[::stride]))
        escaped += [each for failures in found for each in failures]
        assert not escaped, "\n".join(escaped)

    def _configurations(self, driver: type[Driver]) -> Iterator[tuple[str, Any]]:
        for name in driver.options_model.model_fields:
            for value in (*VALUES, *self.more.get(name, ())):
                yield name, value


def _refusal(driver: Driver, options: dict[str, Any]) -> str | None:
    """None if the model lets the options through; empty if it refuses them as it should; else what
    escaped.
    """
    try:
        check_options(type(driver), options)
    except OptionsRefused as refused:
        said = str(refused)
        return "" if f"driver {driver.name} does not take" in said else f"check: {said}"
    except Exception as error:  # noqa: BLE001 - that is what is looked for
        return f"check: {error!r}"
    return None


async def _failures(driver: Driver, options: dict[str, Any]) -> list[str]:
    """What escapes from the driver's calls."""
    spec = spec_of(options)
    known: list[Mapping[str, Any]] = []

    async def create() -> None:
        known.append(await driver.create(spec))

    calls: dict[str, Callable[[], Awaitable[Any]]] = {
        "create": create,
        "inspect": lambda: driver.inspect(ref_of(spec, None)),
        "list": lambda: driver.list_owned([options]),
        "destroy": lambda: driver.destroy(ref_of(spec, known[0] if known else None)),
    }
    found = [await _escaped(name, call) for name, call in calls.items()]
    return [each for each in found if each is not None]


async def _escaped(name: str, call: Callable[[], Awaitable[Any]]) -> str | None:
    try:
        async with asyncio.timeout(DEADLINE_S):
            await call()
    except DriverError as error:
        return None if str(error) else f"{name}: an error without words: {error!r}"
    except TimeoutError:
        return f"{name}: no answer in {DEADLINE_S:g} s"
    except Exception as error:  # noqa: BLE001 - that is what is looked for
        return f"{name}: {type(error).__name__}: {error}"
    return None
