"""grpc.health.v1 out of a room's Health: Check, and Watch, which tells each change.

""           all components are ok and no drain has begun: work should come here; so says each service's full name
users        the same but for what only learning needs: requests of users should come here
liveness     the event loop turns and the room has not declared itself stalled: a restart would be wrong
"""

from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from onlinerlhf.runtime.health import Health

LIVENESS: Final = "liveness"
USERS: Final = "users"
HEALTH_SERVICE: Final = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name


class HealthServicer(health_pb2_grpc.HealthServicer):  # type: ignore[misc] # the package has no types
    """Answers from Health as it is at the moment. Says not serving before `begin`, but for liveness."""

    def __init__(self, health: Health) -> None:
        self._health = health
        self._services: tuple[str, ...] = ()
        self._serves = False

    def begin(self, services: Sequence[str]) -> None:
        """The server that work comes to has started, with these services."""
        self._services = tuple(services)
        self._serves = True
        self._health.announce()

    async def Check(
        self, request: health_pb2.HealthCheckRequest, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> health_pb2.HealthCheckResponse:
        """The status now; NOT_FOUND for a name that is not known."""
        status = self._status(request.service)
        if status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such service")
        return health_pb2.HealthCheckResponse(status=status)

    async def Watch(
        self, request: health_pb2.HealthCheckRequest, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        """The status now and after each change."""
        told = None
        while True:
            changed = self._health.changed
            status = self._status(request.service)
            if status != told:
                told = status
                yield health_pb2.HealthCheckResponse(status=status)
            await changed.wait()

    def _status(self, service: str) -> health_pb2.HealthCheckResponse.ServingStatus:
        health = self._health
        if service == LIVENESS:
            is_good = health.alive
        elif service == USERS:
            is_good = self._serves and health.ready_for_users()
        elif service == "" or service in self._services:
            is_good = self._serves and health.ready()
        else:
            return health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        return health_pb2.HealthCheckResponse.SERVING if is_good else health_pb2.HealthCheckResponse.NOT_SERVING
