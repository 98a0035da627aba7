"""onlinerlhf.v1.DiagnosticsService out of a room's Health: which component does not work, and why."""

from typing import Any

import grpc

from onlinerlhf.runtime.health import Health
from onlinerlhf.v1 import diagnostics_pb2, diagnostics_pb2_grpc


class DiagnosticsServicer(diagnostics_pb2_grpc.DiagnosticsServiceServicer):
    """Thin."""

    def __init__(self, health: Health) -> None:
        self._health = health

    async def GetComponents(
        self, request: diagnostics_pb2.GetComponentsRequest, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> diagnostics_pb2.GetComponentsResponse:
        """All components, by name."""
        components = [
            diagnostics_pb2.Component(name=part.name, ok=part.ok, reason=part.reason, since_seconds=part.since_seconds)
            for part in self._health.components()
        ]
        return diagnostics_pb2.GetComponentsResponse(
            room=self._health.room, components=components, uptime_seconds=self._health.uptime_seconds
        )
