"""The hub's exceptions, by who is to blame.

HubError                a request ends with it; the API renders it as a problem (RFC 9457)
├── InvalidRequest      422  the request contradicts itself or what the hub knows
├── NotFound            404
├── Conflict            409  valid in itself, but the present state forbids it
├── Unauthenticated     401  no token, or none that is known
├── Forbidden           403  a known token whose role does not permit it
├── TooLarge            413
├── TooManyAttempts     429  credentials were guessed too often
├── HeadersTooLarge     431
├── Unavailable         503  the hub cannot answer now; trying again later may work
└── InsufficientStorage 507  no more of the hub's disk is for this
SettingsError           the operator's configuration is wrong; the command line prints it, exit 2
StateLost               another program took the hub's state away while it ran; the same, exit 3
Outage                  something the hub depends on is away; who noticed it first has logged it
"""

from __future__ import annotations

from typing import Any, ClassVar


class HubError(Exception):
    """A request the hub refuses. `detail` is one sentence for a person; it names no internals.

    `pointer` is a JSON pointer (RFC 6901) into the request's body, or None; `errors` are further
    pairs of (pointer, detail) where more than one place of the body is wrong.
    """

    status: ClassVar[int] = 500
    slug: ClassVar[str] = "internal"
    title: ClassVar[str] = "The hub failed"

    def __init__(
        self,
        detail: str,
        *,
        pointer: str | None = None,
        errors: tuple[tuple[str, str], ...] = (),
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.pointer = pointer
        self.errors = errors
        self.retry_after_s = retry_after_s

    def problem(self) -> dict[str, Any]:
        """The members of the application/problem+json document."""
        problem: dict[str, Any] = {
            "type": f"about:blank#{self.slug}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "pointer": self.pointer,
        }
        if self.errors:
            problem["errors"] = [{"pointer": where, "detail": what} for where, what in self.errors]
        return problem

    def headers(self) -> dict[str, str]:
        """HTTP headers that belong to this refusal."""
        if self.retry_after_s is None:
            return {}
        return {"Retry-After": str(self.retry_after_s)}


class InvalidRequest(HubError):
    """The request contradicts itself or what the hub knows."""

    status = 422
    slug = "invalid-request"
    title = "The request is not valid"


class NotFound(HubError):
    """No such worker, build, step, token or page."""

    status = 404
    slug = "not-found"
    title = "There is no such thing"


class Conflict(HubError):
    """The request is valid, but the present state of the hub or of its workers and
    builds forbids it.
    """

    status = 409
    slug = "conflict"
    title = "The state of things forbids it"


class Unauthenticated(HubError):
    """No token came with the request, or none that is known and unexpired."""

    status = 401
    slug = "unauthenticated"
    title = "A valid token is needed"

    def headers(self) -> dict[str, str]:
        """RFC 9110 section 11.6.1: a 401 names the scheme it wants."""
        return {**super().headers(), "WWW-Authenticate": 'Bearer realm="hostler"'}


class Forbidden(HubError):
    """The token is known, but its role does not permit the request."""

    status = 403
    slug = "forbidden"
    title = "The token's role is too small"


class TooLarge(HubError):
    """The request's body is larger than this route reads."""

    status = 413
    slug = "too-large"
    title = "The request is too large"


class TooManyAttempts(HubError):
    """One client has sent wrong credentials too often for one token."""

    status = 429
    slug = "too-many-attempts"
    title = "Too many failed attempts"


class HeadersTooLarge(HubError):
    """The request's header fields are larger than the hub reads."""

    status = 431
    slug = "headers-too-large"
    title = "The request's headers are too large"


class Unavailable(HubError):
    """The hub cannot answer the request now; the same request may succeed later."""

    status = 503
    slug = "unavailable"
    title = "The hub cannot do this now"


class InsufficientStorage(HubError):
    """What the request stores has no room: a quota is reached, or the hub's disk is full."""

    status = 507
    slug = "insufficient-storage"
    title = "The hub has no space for this"


class SettingsError(Exception):
    """The operator's configuration is wrong. The message is one line and says what to change."""


class StateLost(Exception):
    """Another program took the hub's state away while the hub ran. The hub does not restart by
    itself, since it would begin with an empty state. The message is one line and says what to do.
    """


class Outage(Exception):
    """Something that the hub depends on, such as its database, cannot be used now. The part that
    noticed it has logged it once, so whoever passes it on logs no traceback.
    """
