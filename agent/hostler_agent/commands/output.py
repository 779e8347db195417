"""Sends a command's output to the hub: masks the secrets in it, encodes it, collects it in updates,
and limits the delay.

The first bytes are sent after FIRST_DELAY_S, so that a command that has ended by then takes one
update; later ones are sent when `buffer_size` is reached or `buffer_timeout` has passed. While
write() waits, the job's pipe is not read: that is the back-pressure on the job (E11).
"""

from __future__ import annotations

import asyncio
import codecs
from typing import TYPE_CHECKING, Any, Callable, Optional, Protocol

from hostler_agent import machine
from hostler_agent.clock import Clock, Timer
from hostler_agent.commands.masking import StreamMask
from hostler_agent.wire import extension, text

if TYPE_CHECKING:
    from hostler_agent.commands.protocols import Context, Settings

FIRST_DELAY_S = 0.01
# An update must stay below the hub's 1 MiB and 65,536 items whatever is in it, a newline in each
# byte included: three writers add one slice each before the first of them waits.
MAX_BUFFER_BYTES = 256 * 1024
MAX_BUFFER_ITEMS = 16 * 1024
SMALL_SLICE_BYTES = 8 * 1024
LARGE_SLICE_BYTES = 32 * 1024
_LINE_ENDS = (b"\n", b"\r", b"\033", b"\b")


class Encoder(Protocol):
    """Gathers output for updates. `size_bytes` and `items` measure what the next update holds."""

    size_bytes: int
    items: int

    def slice_bytes(self, data: bytes, /) -> int:
        """The most bytes that may be added in one call."""

    def add(self, stream: str, data: bytes, now: float, /) -> None: ...
    def add_log(self, name: str, data: bytes, now: float, /) -> None: ...
    def add_pair(self, name: str, value: Any) -> None: ...
    def finish(self, now: float, /) -> None:
        """Complete the last line, which is held back until its newline arrives."""

    def take(self) -> list[list[Any]]:
        """Take the pairs of one update."""


class RawEncoder:
    """Encodes output as bytes with offsets into the command's one log, for a Hostler hub."""

    def __init__(self) -> None:
        self.size_bytes = 0
        self.items = 0
        self._offset = 0
        self._pairs: list[list[Any]] = []
        self._stream: Optional[str] = None
        self._chunks: list[bytes] = []

    def slice_bytes(self, _data: bytes) -> int:
        return 128 * 1024

    def add(self, stream: str, data: bytes, _now: float) -> None:
        if stream != self._stream:
            self._close_stretch()
            self._stream = stream
        self._chunks.append(data)
        self.size_bytes += len(data)
        self.items += 8

    def add_log(self, name: str, data: bytes, now: float) -> None:
        self.add(name, data, now)

    def add_pair(self, name: str, value: Any) -> None:
        self._close_stretch()
        self._pairs.append([name, value])

    def finish(self, _now: float) -> None:
        """Do nothing: bytes are not held back."""

    def take(self) -> list[list[Any]]:
        self._close_stretch()
        pairs, self._pairs = self._pairs, []
        self.size_bytes = self.items = 0
        return pairs

    def _close_stretch(self) -> None:
        if self._stream is not None and self._chunks:
            data = b"".join(self._chunks)
            self._pairs.append(extension.Output(self._stream, self._offset, data).pair())
            self._offset += len(data)
        self._stream = None
        self._chunks = []


class TextEncoder:
    """Encodes output as lists of text and line positions, for stock masters."""

    def __init__(self, settings: Settings) -> None:
        self.size_bytes = 0
        self.items = 0
        self._settings = settings
        self._splitters: dict[tuple[str, str], text.LineSplitter] = {}
        self._pairs: list[list[Any]] = []
        self._last: Optional[tuple[str, str]] = None

    def slice_bytes(self, data: bytes) -> int:
        # However many lines there are in a small slice, a large one must not have more: it is for
        # a peer's usual expression only, whose newlines all begin with one of a few characters.
        if self._settings.newline_re != text.BUILDBOTS_NEWLINE_RE:
            return SMALL_SLICE_BYTES
        lines = len(data) // max(self._settings.max_line_length - 1, 1)
        lines += sum(data.count(end) for end in _LINE_ENDS if end in data)
        return LARGE_SLICE_BYTES if lines < SMALL_SLICE_BYTES else SMALL_SLICE_BYTES

    def add(self, stream: str, data: bytes, now: float) -> None:
        self._add((stream, ""), data, now)

    def add_log(self, name: str, data: bytes, now: float) -> None:
        self._add(("log", name), data, now)

    def add_pair(self, name: str, value: Any) -> None:
        self._last = None
        self._pairs.append([name, value])

    def finish(self, now: float) -> None:
        for key, splitter in self._splitters.items():
            self._append(key, splitter.flush(now))

    def take(self) -> list[list[Any]]:
        pairs, self._pairs = self._pairs, []
        self._last = None
        self.size_bytes = self.items = 0
        return pairs

    def _add(self, key: tuple[str, str], data: bytes, now: float) -> None:
        splitter = self._splitters.get(key)
        if splitter is None:
            settings = self._settings
            splitter = text.LineSplitter(
                settings.max_line_length, settings.newline_re, self._decoder(key[0])
            )
            self._splitters[key] = splitter
        self._append(key, splitter.feed(data, now))

    def _decoder(self, stream: str) -> codecs.IncrementalDecoder:
        # Headers are our own text.
        utf8 = codecs.getincrementaldecoder("utf-8")
        return utf8("replace") if stream == "header" else machine.output_decoder()

    def _append(self, key: tuple[str, str], content: Optional[text.Content]) -> None:
        if content is None:
            return
        lines = len(content[1])
        self.items += 2 * lines + 5
        # A position takes up to 5 bytes on the wire, a time 9.
        self.size_bytes += _encoded_bytes(content[0]) + 14 * lines
        stream, name = key
        if key == self._last:
            held = self._pairs[-1][1]
            text.join(held[1] if name else held, content)
        else:
            self._pairs.append([stream, [name, content] if name else content])
        self._last = key


def _encoded_bytes(string: str) -> int:
    return len(string) if string.isascii() else len(string.encode("utf-8", "replace"))


class CommandOutput:
    """A command's output. Must be closed or abandoned. An exception of the context's update() is
    raised by the next call.
    """

    def __init__(self, context: Context, clock: Clock) -> None:
        self._context = context
        self._clock = clock
        settings = context.settings
        self._encoder: Encoder = RawEncoder() if context.raw else TextEncoder(settings)
        self._buffer_bytes = min(max(settings.buffer_size, 1), MAX_BUFFER_BYTES)
        self._delay_s = min(FIRST_DELAY_S, settings.buffer_timeout)
        self._masks: dict[tuple[str, bool], StreamMask] = {}
        self._talked = False
        self._timer: Optional[Timer] = None
        self._sending = asyncio.Lock()
        self._late: Optional[asyncio.Task[None]] = None

    async def write(self, stream: str, data: bytes) -> None:
        """Add output; `stream` is stdout, stderr or header."""
        # The header is not yet what somebody waits to see.
        self._talked = self._talked or stream != "header"
        await self._add(self._encoder.add, stream, self._masked(stream, data, is_log=False))

    async def write_log(self, name: str, data: bytes) -> None:
        await self._add(self._encoder.add_log, name, self._masked(name, data, is_log=True))

    async def say(self, stream: str, message: str) -> None:
        """Add a text of the agent's own, which must end with a newline."""
        self._talked = self._talked or stream != "header"
        data = self.masked_text(message).encode("utf-8", "replace")
        await self._add(self._encoder.add, stream, data)

    def masked_text(self, text: str) -> str:
        """A whole text without the secrets in it."""
        mask = self._context.mask
        return text if mask is None else mask.text(text)

    async def pair(self, name: str, value: Any) -> None:
        self._encoder.add_pair(name, value)
        await self._gathered()

    def finish_lines(self) -> None:
        """Complete the last line even without a newline. Called when the agent adds a line."""
        self._encoder.finish(self._clock.wall())

    def finish_output(self) -> None:
        """Add what was held back because it might have been the beginning of a secret, and complete
        the last line. Called when the job has ended: no output follows.
        """
        masks, self._masks = self._masks, {}
        for (stream, is_log), mask in masks.items():
            add = self._encoder.add_log if is_log else self._encoder.add
            if held := mask.finish():
                add(stream, held, self._clock.wall())
        self.finish_lines()

    async def flush(self) -> None:
        async with self._sending:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            pairs = self._encoder.take()
            if pairs:
                if self._talked:
                    self._delay_s = self._context.settings.buffer_timeout
                await self._context.update(pairs)

    def abandon(self) -> None:
        """Send nothing more. Called when no hub waits for the output."""
        if self._timer is not None:
            self._timer.cancel()
        if self._late is not None:
            self._late.cancel()

    async def aclose(self) -> None:
        """Send everything that was added, and stop."""
        self.finish_output()
        if self._late is not None:
            await self._late
        await self.flush()

    def _masked(self, stream: str, data: bytes, *, is_log: bool) -> bytes:
        if self._context.mask is None:
            return data
        key = (stream, is_log)
        if key not in self._masks:
            self._masks[key] = StreamMask(self._context.mask)
        return self._masks[key].feed(data)

    async def _add(self, add: Callable[[str, bytes, float], None], name: str, data: bytes) -> None:
        size_bytes = self._encoder.slice_bytes(data)
        for start in range(0, len(data), size_bytes):
            add(name, data[start : start + size_bytes], self._clock.wall())
            await self._gathered()

    async def _gathered(self) -> None:
        if self._late is not None and self._late.done():
            self._late.result()
        encoder = self._encoder
        if encoder.size_bytes >= self._buffer_bytes or encoder.items >= MAX_BUFFER_ITEMS:
            await self.flush()
        elif self._timer is None:
            self._start_timer()

    def _flush_later(self) -> None:
        self._timer = None
        if self._late is None or self._late.done():
            self._late = asyncio.get_running_loop().create_task(self.flush(), name="flush output")
        else:
            # It still waits for the hub, and has left with what there was then.
            self._start_timer()

    def _start_timer(self) -> None:
        self._timer = self._clock.call_later(self._delay_s, self._flush_later)
