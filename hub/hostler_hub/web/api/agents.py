"""The agents' door: Buildbot's worker protocol over WebSocket.

A stock worker asks for `/`; ours for the named path.
"""

from fastapi import APIRouter
from starlette.websockets import WebSocket

from hostler_hub.web.api.security import AGENTS_ONLY
from hostler_hub.web.hub import Hub

router = APIRouter(dependencies=[AGENTS_ONLY])


@router.websocket("/api/v1/agents/connect")
@router.websocket("/")
async def connect(websocket: WebSocket) -> None:
    """Hands the handshake over; `Agents.serve` authenticates it and everything after."""
    hub: Hub = websocket.app.state.hub
    await hub.agents.serve(websocket)
