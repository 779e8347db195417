# Copyright: The Hostler developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What can go wrong between a plugin and the hub.

    HubError                   every one of them; has status, pointer and details
    +-- Misconfigured          hub_url, hub_token or hub_token_file cannot be right
    +-- HubUnreachable         nobody answers at hub_url, or not in time, or not ready (503)
    +-- TokenRefused           401: the token is unknown or expired
    +-- RoleTooSmall           403: the token is good, but not for this
    +-- NotFound               404
    +-- Conflict               409: right words at the wrong time
    +-- InvalidRequest         422, 400 and 413: words the hub does not take
    +-- HubFailed              500: a mistake of the hub's own
    +-- UnexpectedAnswer       anything that is not the hub's own language

Messages name what was attempted, where, and what would be right. None holds the token.
"""

from __future__ import annotations

import json


class HubError(Exception):
    """A request that did not succeed.

    status is the HTTP status or None, pointer a JSON pointer into the request's body or None, and
    details the hub's list of {"pointer", "detail"} when it found more than one thing wrong.
    """

    def __init__(self, message, status=None, pointer=None, details=()):
        super().__init__(message)
        self.message = message
        self.status = status
        self.pointer = pointer
        self.details = list(details)


class Misconfigured(HubError):
    pass


class HubUnreachable(HubError):
    pass


class TokenRefused(HubError):
    pass


class RoleTooSmall(HubError):
    pass


class NotFound(HubError):
    pass


class Conflict(HubError):
    pass


class InvalidRequest(HubError):
    pass


class HubFailed(HubError):
    pass


class UnexpectedAnswer(HubError):
    pass


BY_STATUS = {
    400: InvalidRequest,
    401: TokenRefused,
    403: RoleTooSmall,
    404: NotFound,
    409: Conflict,
    413: InvalidRequest,
    422: InvalidRequest,
    500: HubFailed,
    503: HubUnreachable,
}

ADVICE = {
    401: "give a valid token by hub_token or hub_token_file"
    " (the hub writes an admin's one to admin.token in its state directory)",
    403: "use a token of a role that may do this",
    500: "this is a mistake of the hub's own, and its log (hub.log) tells more",
    503: "the hub is starting or stopping; try again",
}


def from_answer(where, status, body):
    """Turn an answer that is no success into the error that says so.

    where is "METHOD URL" without secrets, body the answer's bytes (RFC 9457 problem details from
    the hub itself; anything else comes from something in between).
    """
    problem = read_problem(body)
    kind = BY_STATUS.get(status)
    if kind is None or (problem is None and status != 503):
        return UnexpectedAnswer(
            "%s answered %s, which is no answer of a hub; hub_url may name something else"
            % (where, status),
            status,
        )
    problem = problem or {}
    pointer = problem.get("pointer")
    details = problem.get("errors") or []
    said = sentence(problem, details)
    advice = ADVICE.get(status)
    message = "%s: %s" % (where, said) if said else "%s answered %s" % (where, status)
    if advice:
        message = "%s; %s" % (message.rstrip(". "), advice)
    return kind(message, status, pointer, details)


def read_problem(body):
    """The problem details in body (bytes), or None when there are none."""
    try:
        problem = json.loads(body)
    except ValueError:
        return None
    if isinstance(problem, dict) and ("title" in problem or "detail" in problem):
        return problem
    return None


def sentence(problem, details):
    """Say in one line what the hub found wrong, and where."""
    if len(details) > 1:
        shown = ["%s: %s" % (one.get("pointer"), one.get("detail")) for one in details[:5]]
        more = len(details) - len(shown)
        if more:
            shown.append("and %d more" % more)
        return "; ".join(shown)
    text = str(problem.get("detail") or problem.get("title") or "")
    pointer = problem.get("pointer")
    if pointer and not text.startswith(pointer):
        return "%s: %s" % (pointer, text)
    return text
