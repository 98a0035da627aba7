"""What the gateway is compared with: servers that send back what they get. Processes: `grpc PORT`, `http PORT`."""

import asyncio
import sys
from typing import Any

ECHO_METHOD = "/onlinerlhf.benchmarks.Echo/Echo"


async def _echo(request: bytes, _context: Any) -> bytes:
    return request


async def _serve_grpc(port: int) -> None:
    """Bytes in, the same bytes out: not even protobuf."""
    import grpc

    server = grpc.aio.server()
    service, method = ECHO_METHOD.strip("/").split("/")
    handlers: dict[str, Any] = {method: grpc.unary_unary_rpc_method_handler(_echo)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


def _serve_http(port: int) -> None:
    """A JSON body in, the same body out, as `fastapi` and `uvicorn` do it when nobody asks for more."""
    import uvicorn
    from fastapi import Body, FastAPI

    api = FastAPI()

    @api.post("/v1/chat/completions")
    async def echo(body: dict[str, Any] = Body()) -> dict[str, Any]:  # noqa: B008 - FastAPI's way
        return body

    uvicorn.run(api, host="127.0.0.1", port=port, log_level="warning")


if __name__ == "__main__":
    if sys.argv[1] == "grpc":
        asyncio.run(_serve_grpc(int(sys.argv[2])))
    else:
        _serve_http(int(sys.argv[2]))
