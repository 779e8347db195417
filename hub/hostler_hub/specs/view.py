"""The base of what the hub shows: models that a room makes, validated, and that become JSON."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class View(BaseModel):
    """One answer of the hub, or a part of one.

    A view has exactly the fields that its class declares, and is validated when it is made: what
    leaves a room is what OpenAPI documents. Instants are texts (ISO 8601 in UTC, milliseconds).
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        serialize_by_alias=True,
        json_schema_serialization_defaults_required=True,  # an answer leaves no field out
    )
