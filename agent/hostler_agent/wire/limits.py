"""The sizes that both ends of a connection agree on: how much one peer may ask of the other (U4).

The sizes are per direction. The hub has thousands of agents that it does not trust, so it accepts
little from each; an agent has one hub, which sends file contents.
"""

from __future__ import annotations

from dataclasses import dataclass

MEBIBYTE = 1024 * 1024


@dataclass(frozen=True)
class MessageLimits:
    """The limits that the receiver sets for one direction.

    `message_size_bytes` limits one frame, `depth` the nesting of its containers, `items` the total
    number of values in them, `in_flight` the sender's unanswered requests.
    """

    message_size_bytes: int
    depth: int = 32
    items: int = 65_536
    in_flight: int = 64


TO_HUB = MessageLimits(message_size_bytes=1 * MEBIBYTE)
TO_AGENT = MessageLimits(message_size_bytes=8 * MEBIBYTE)
