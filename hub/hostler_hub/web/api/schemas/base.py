"""What the shapes have in common."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

WorkerMode = Literal["active", "paused", "draining", "stopped"]
WorkerState = Literal["latent", "substantiating", "substantiated", "insubstantiating"]


class Shape(BaseModel):
    """An answer, or a part of one; it has nothing beside what is said here."""

    model_config = ConfigDict(extra="forbid")
