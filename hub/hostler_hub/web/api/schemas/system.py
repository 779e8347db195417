"""Answers about the hub itself, who asks it, and its tokens: the nouns that the web layer owns."""

from typing import Literal

from pydantic import Field

from hostler_hub.builds.views import BuildCounts, StorageView
from hostler_hub.specs.caller import Role
from hostler_hub.specs.view import View
from hostler_hub.workers.incident_views import IncidentCounts
from hostler_hub.workers.views import WorkerCounts


class Health(View):
    """That the hub answers."""

    status: Literal["ok"] = Field(description="Always `ok`.")
    version: str = Field(description="The hub's version.")
    hub: str = Field(description="The hub's id, made once per database.")


class Ready(View):
    """That the hub can accept builds."""

    status: Literal["ready"] = Field(description="Always `ready`.")


class NotReady(View):
    """That the hub can accept nothing now, since it could not keep it."""

    status: Literal["not ready"] = Field(description="Always `not ready`.")
    reason: str = Field(description="What is wrong, in a sentence without paths or hosts.")


class Whoami(View):
    """Whose token it is."""

    name: str = Field(description="The token's name.")
    role: Role = Field(description="What the token may do.")


class Status(View):
    """The hub at a glance."""

    version: str = Field(description="The hub's version.")
    hub: str = Field(description="The hub's id, made once per database.")
    hold: str | None = Field(
        description="Why the hub starts and destroys nothing until that is confirmed, as after a "
        "restore; null if it is in no hold."
    )
    not_ready: str | None = Field(
        description="Why the hub can accept nothing now, as it could not keep it; null if it can."
    )
    workers: WorkerCounts = Field(description="How many workers are how.")
    builds: BuildCounts = Field(description="How many builds are under way.")
    incidents: IncidentCounts = Field(description="How many incidents are not over.")
    storage: StorageView = Field(description="What submitters use of the hub's disk.")


class CreatedToken(View):
    """A new token, shown this once."""

    name: str = Field(description="The token's name.")
    role: Role = Field(description="What the token may do.")
    token: str = Field(description="The token itself, which the hub does not store.")


class TokenView(View):
    """A token without what proves it."""

    name: str = Field(description="The token's name.")
    role: Role = Field(description="What the token may do.")
    lookup: str = Field(description="The part of the token that the hub finds it by.")
    created_by: str = Field(description="Who made it, by their token's name.")
    created_at: str = Field(description="When it was made.")
    expires_at: str | None = Field(description="When it ends; null for the hub's own.")


class TokenList(View):
    """Every token by name."""

    items: list[TokenView] = Field(description="The tokens.")
