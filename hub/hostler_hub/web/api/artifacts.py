"""The routes of files: those stored for builds to download, and the artifacts of builds."""

from collections.abc import AsyncIterator
from typing import Annotated, BinaryIO
from urllib.parse import quote

from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from hostler_hub.web.api import problems
from hostler_hub.web.api.builds import PAGE_ROWS, BuildId
from hostler_hub.web.api.responses import Json
from hostler_hub.web.api.schemas import builds as schemas
from hostler_hub.web.api.security import GuardedRoute, Submitter, Viewer
from hostler_hub.web.hub import HubPart

router = APIRouter(prefix="/api/v1", route_class=GuardedRoute, tags=["files"])

_CHUNK_BYTES = 256 * 1024
_BYTES = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}


class Range(BaseModel):
    """Which artifacts to list."""

    model_config = ConfigDict(extra="forbid")

    limit: Annotated[int, Field(ge=1, le=PAGE_ROWS)] = PAGE_ROWS
    after: Annotated[str, Field(max_length=1024)] | None = None


@router.post(
    "/files",
    status_code=201,
    response_model=schemas.StoredFileView,
    responses=problems.responses(413),
    openapi_extra={"requestBody": {"required": False, "content": _BYTES}},
)
async def store(
    request: Request,
    hub: HubPart,
    caller: Submitter,  # noqa: ARG001  # declares the role
) -> Json:
    """Stores the body as a file for builds to download, named by its hash; twice is once."""
    return Json(await hub.exchange.files.store(request.stream()), status_code=201)


@router.get(
    "/builds/{id}/artifacts",
    response_model=schemas.ArtifactPage,
    responses=problems.responses(404),
)
async def page(
    id: BuildId,
    hub: HubPart,
    caller: Viewer,  # noqa: ARG001
    where: Annotated[Range, Query()],
) -> Json:
    """The artifacts of a build's latest attempt, by path, a page at a time."""
    return Json(await hub.exchange.artifacts.page(id, where.limit, where.after))


@router.get(
    "/builds/{id}/artifacts/{path:path}",
    response_class=Response,
    responses={200: {"description": "The file", "content": _BYTES}, **problems.responses(404)},
)
async def artifact(
    id: BuildId,
    path: Annotated[str, Path(max_length=1024)],
    hub: HubPart,
    caller: Viewer,  # noqa: ARG001
) -> Response:
    """An artifact's bytes."""
    view, file = await hub.exchange.artifacts.open(id, path)
    # Attachment: no browser may ever take what a build made for a page (U8).
    name = quote(path.rpartition("/")[2], safe="")
    headers = {
        "Content-Disposition": f"attachment; filename*=UTF-8''{name}",
        "Content-Length": str(view.size_bytes),
        "Hostler-Sha256": view.sha256,
    }
    return _File(file, headers)


class _File(StreamingResponse):
    """Streams a file, and closes it also when the client goes away."""

    def __init__(self, file: BinaryIO, headers: dict[str, str]) -> None:
        super().__init__(_read(file), media_type="application/octet-stream", headers=headers)
        self._file = file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._file:
            await super().__call__(scope, receive, send)


async def _read(file: BinaryIO) -> AsyncIterator[bytes]:
    while data := await run_in_threadpool(file.read, _CHUNK_BYTES):
        yield data
