"""What is wrong with a text that a user wrote.

ValueError
└── ConditionError    a condition or a version range cannot be parsed (the user)
"""

from __future__ import annotations


class ConditionError(ValueError):
    """The text is not a condition; ``position`` is the character of the error, counted from 1."""

    def __init__(self, message: str, position: int) -> None:
        super().__init__(f"at character {position}: {message}")
        self.position = position
