"""Which role may do what."""

from __future__ import annotations

import pytest

from hostler_hub.specs.caller import Role


@pytest.mark.parametrize(
    ("role", "covered"),
    [
        (Role.VIEWER, {Role.VIEWER}),
        (Role.SUBMITTER, {Role.VIEWER, Role.SUBMITTER}),
        (Role.OPERATOR, {Role.VIEWER, Role.SUBMITTER, Role.OPERATOR}),
        (Role.ADMIN, set(Role)),
    ],
)
def test_a_role_covers_itself_and_those_below_it(role: Role, covered: set[Role]) -> None:
    assert {each for each in Role if role.covers(each)} == covered
