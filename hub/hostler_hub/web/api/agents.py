"""The WebSocket endpoint of agents, which speak Buildbot's worker protocol.

A stock Buildbot worker connects to `/`, Hostler's own agent to the named path.
"""

from fastapi import APIRouter
from starlette.websockets import WebSocket

from hostler_hub.web.api.security import AGENTS_ONLY
from hostler_hub.web.hub import Hub

router = APIRouter(dependencies=[AGENTS_ONLY])


@router.websocket("/api/v1/agents/connect")
@router.websocket("/")
async def connect(websocket: WebSocket) -> None:
    """Serves one agent's connection; `AgentServer.serve` authenticates its handshake."""
    hub: Hub = websocket.app.state.hub
    await hub.agents.serve(websocket)
