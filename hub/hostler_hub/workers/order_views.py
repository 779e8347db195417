"""What orders about workers changed, as the REST API shows it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hostler_hub.lifecycle.model import Mode, State
from hostler_hub.specs.view import View
from hostler_hub.workers.views import DefinitionView


class DefineResult(View):
    """What defining one worker changed."""

    name: str = Field(description="The worker's name.")
    changed: bool = Field(description="Whether it was not so already.")
    created: bool = Field(description="Whether it is new.")
    before: DefinitionView | None = Field(description="Its definition before.")
    after: DefinitionView = Field(description="Its definition now.")


class DefineResults(View):
    """One result per definition, in the request's order."""

    results: list[DefineResult] = Field(description="The results.")


class RemoveResult(View):
    """What removing one worker changed."""

    name: str = Field(description="The worker's name.")
    changed: bool = Field(description="Whether it was there, and not being removed already.")
    state: Literal["absent", "removing"] = Field(
        description="`removing` until its instance is proven gone."
    )


class RemoveResults(View):
    """One result per name, in the request's order."""

    results: list[RemoveResult] = Field(description="The results.")


class ModeState(View):
    """What is wanted of a worker, and why."""

    mode: Mode = Field(description="What an operator wants of it.")
    reason: str | None = Field(description="Why, in the operator's words.")
    until: str | None = Field(description="When it is active again by itself.")


class ModeResult(View):
    """What setting one worker's mode changed."""

    name: str = Field(description="The worker's name.")
    changed: bool = Field(description="Whether it was not so already.")
    before: ModeState = Field(description="What was wanted before.")
    after: ModeState = Field(description="What is wanted now.")


class ModeResults(View):
    """One result per name, in the request's order."""

    results: list[ModeResult] = Field(description="The results.")


class StateResult(View):
    """What asking for an instance, or its end, changed."""

    name: str = Field(description="The worker's name.")
    changed: bool = Field(description="Whether it was not so already.")
    state: State = Field(description="How its instance is now.")


class StateResults(View):
    """One result per name, in the request's order."""

    results: list[StateResult] = Field(description="The results.")
