"""The agent's archive, for machines that fetch it themselves when they boot.

It is public: it holds the same code for everybody and no secret, and a machine that boots has no
token for this API. What asks knows the digest, and checks it.
"""

from typing import Annotated

from fastapi import APIRouter, Path, Request
from starlette.responses import FileResponse, Response

from hostler_hub.drivers import agent_archive
from hostler_hub.errors import NotFound
from hostler_hub.web.api import problems
from hostler_hub.web.api.security import PUBLIC, GuardedRoute
from hostler_hub.web.hub import HubPart

router = APIRouter(prefix="/api/v1/agents", route_class=GuardedRoute, tags=["agents"])

Digest = Annotated[str, Path(pattern="^[0-9a-f]{64}$")]

_BYTES = {"application/zip": {"schema": {"type": "string", "format": "binary"}}}


@router.get(
    "/archive/{sha256}",
    response_class=Response,
    dependencies=[PUBLIC],
    responses={200: {"description": "The agent", "content": _BYTES}, **problems.responses(404)},
)
async def fetch(sha256: Digest, request: Request, hub: HubPart) -> Response:
    """The agent as one file that any Python from 3.9 on runs, by its SHA-256 digest."""
    path = agent_archive.path_of(hub.settings.archive_dir, sha256)
    if not path.is_file():
        raise NotFound(f"There is no agent archive {sha256}")
    # The digest names the content, which can therefore never change.
    headers = {"ETag": f'"{sha256}"', "Cache-Control": "public, max-age=31536000, immutable"}
    if headers["ETag"] in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return FileResponse(path, media_type="application/zip", headers=headers)
