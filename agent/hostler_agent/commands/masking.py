"""Masks secrets in a command's output, before any of it leaves the agent.

Theory of operation. A stream comes in chunks of any size, and a secret may begin in one and end in
another. Of each chunk everything is passed on but the end of it that may be the beginning of a
form (see secret_forms); that is held back until the next chunk shows what it is. Occurrences that
touch or overlap become one mask. So the masked text depends on the output alone, not on how it was
cut into chunks, and never more than one form's length is held back.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from typing import Optional

from hostler_agent.commands.secret_forms import MIN_BYTES, forms
from hostler_agent.wire.extension import CommandTerms

MASK = b"***"

REMEMBERED_LEASES = 64


class Mask:
    """Finds some secrets' forms in byte strings."""

    def __init__(self, values: Iterable[bytes]) -> None:
        self._forms = forms(values)
        self._first = frozenset(form[0] for form in self._forms)
        self._longest = max(map(len, self._forms), default=0)

    def apply(self, data: bytes) -> bytes:
        """Mask a whole text."""
        stream = StreamMask(self)
        return stream.feed(data) + stream.finish()

    def text(self, text: str) -> str:
        return self.apply(text.encode("utf-8", "replace")).decode("utf-8", "replace")

    def occurrences(self, data: bytes) -> list[tuple[int, int]]:
        """The start and end of every form in the data, in the order of their starts."""
        found = []
        for form in self._forms:
            at = data.find(form)
            while at >= 0:
                found.append((at, at + len(form)))
                at = data.find(form, at + 1)
        return sorted(found)

    def open_start(self, data: bytes) -> int:
        """Where the longest end of the data begins that a form may continue; the data's length if
        there is none.
        """
        for start in range(max(0, len(data) - self._longest + 1), len(data)):
            if data[start] in self._first and self._begins_form(data[start:]):
                return start
        return len(data)

    def _begins_form(self, end: bytes) -> bool:
        at = bisect_right(self._forms, end)
        return at < len(self._forms) and self._forms[at].startswith(end)


class StreamMask:
    """Masks one stream."""

    def __init__(self, mask: Mask) -> None:
        self._mask = mask
        self._held = b""
        # Where the latest mask ends, from the start of what is held; below 0 if it is over.
        self._masked_to = -1

    def feed(self, data: bytes) -> bytes:
        """Take the next chunk. Returns what may be passed on."""
        data = self._held + data
        return self._pass_on(data, self._mask.open_start(data))

    def finish(self) -> bytes:
        """Return what is left at the end of the stream. The cut-off beginning of a form is masked,
        too: the rest of it may have been lost with a process that was killed.
        """
        held, masked_to = self._held, self._masked_to
        self._held, self._masked_to = b"", -1
        if len(held) < MIN_BYTES:
            return held[max(masked_to, 0) :]
        return MASK if masked_to < 0 else b""

    def _pass_on(self, data: bytes, end: int) -> bytes:
        """Mask the data up to ``end`` and hold the rest."""
        passed, at, masked_to = [], max(self._masked_to, 0), self._masked_to
        for start, stop in self._mask.occurrences(data):
            if start > masked_to and start >= end:
                break
            if start > masked_to:
                passed += [data[at:start], MASK]
            masked_to = max(masked_to, stop)
            at = max(at, stop)
        if at < end:
            passed.append(data[at:end])
        self._held, self._masked_to = data[end:], max(masked_to - end, -1)
        return b"".join(passed)


class LeaseMasks:
    """The masks of the leases whose commands had secrets.

    What one step of a build writes to a file a later one may print: so all commands of a lease are
    masked by the secrets of those before them. Kept in memory only; a lease does not outlive the
    agent's process.
    """

    def __init__(self) -> None:
        self._values: dict[str, frozenset[bytes]] = {}
        self._masks: dict[str, Mask] = {}

    def add(self, terms: Optional[CommandTerms]) -> Optional[Mask]:
        """The mask for the next command, which has these terms; None if there is nothing to
        mask.
        """
        if terms is None:
            return None
        lease, known = terms.lease, self._values.pop(terms.lease, frozenset())
        values = known | {secret.value for secret in terms.secrets if secret.value is not None}
        if not values:
            return None
        if values != known:
            self._masks[lease] = Mask(values)
        self._values[lease] = values
        while len(self._values) > REMEMBERED_LEASES:
            oldest = next(iter(self._values))
            del self._values[oldest], self._masks[oldest]
        return self._masks[lease]
