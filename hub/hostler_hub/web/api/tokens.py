"""API tokens: made, listed, revoked by administrators."""

from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, StrictStr
from starlette.responses import Response

from hostler_hub.runtime.clock import instant
from hostler_hub.specs.build import Number
from hostler_hub.specs.caller import Role
from hostler_hub.web.api import problems
from hostler_hub.web.api.responses import Json
from hostler_hub.web.api.schemas import system as schemas
from hostler_hub.web.api.security import Admin, GuardedRoute
from hostler_hub.web.hub import HubPart
from hostler_hub.web.tokens import MAX_LIFE_S

router = APIRouter(prefix="/api/v1/tokens", route_class=GuardedRoute, tags=["tokens"])


class CreateToken(BaseModel):
    """A token to make; it lives 90 days at most."""

    model_config = ConfigDict(extra="forbid")

    name: StrictStr
    role: Role
    expires_in_s: Annotated[Number, Field(gt=0, le=MAX_LIFE_S)] | None = None


@router.post(
    "",
    status_code=201,
    response_model=schemas.CreatedToken,
    responses=problems.responses(409, 413),
)
async def create(body: CreateToken, hub: HubPart, caller: Admin) -> Json:
    """Makes a token and shows it, this once."""
    life_s = MAX_LIFE_S if body.expires_in_s is None else body.expires_in_s
    token = await hub.tokens.create(body.name, body.role, by=caller.name, expires_in_s=life_s)
    made = schemas.CreatedToken(name=body.name, role=body.role, token=token)
    return Json(made, status_code=201)


@router.get("", response_model=schemas.TokenList, responses=problems.responses())
async def list_all(hub: HubPart, caller: Admin) -> Json:  # noqa: ARG001  # declares the role
    """Every token, without what proves it."""
    items = [
        schemas.TokenView(
            name=each["name"],
            role=each["role"],
            lookup=each["lookup"],
            created_by=each["created_by"],
            created_at=instant(each["created_at"]),
            expires_at=instant(each["expires_at"]),
        )
        for each in await hub.tokens.list()
    ]
    return Json(schemas.TokenList(items=items))


@router.delete("/{name}", status_code=204, responses=problems.responses(404))
async def delete(name: str, hub: HubPart, caller: Admin) -> Response:  # noqa: ARG001
    """Revokes a token at once."""
    await hub.tokens.delete(name)
    return Response(status_code=204)
