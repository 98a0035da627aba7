"""Asks the gRPC health service in this container, for Docker and compose; the kubelet asks it by itself.

    python /opt/probe.py [ADDRESS [SERVICE]]

ADDRESS is by default $ONLINERLHF_PROBE_ADDRESS, or 127.0.0.1:50052, the plaintext health port; SERVICE is `liveness`,
`users` or empty. Exits with 0 where the answer is SERVING, with 1 and one line where it is not.
"""

import os
import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

DEADLINE_SECONDS = 3.0


def main(arguments: list[str]) -> int:
    """One question."""
    address = arguments[0] if arguments else os.environ.get("ONLINERLHF_PROBE_ADDRESS", "127.0.0.1:50052")
    service = arguments[1] if len(arguments) > 1 else ""
    with grpc.insecure_channel(address, options=(("grpc.enable_http_proxy", 0),)) as channel:
        try:
            reply = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(service=service), timeout=DEADLINE_SECONDS
            )
        except grpc.RpcError as error:
            print(f"{address} does not say: {error.code().name}", file=sys.stderr)
            return 1
    if reply.status != health_pb2.HealthCheckResponse.SERVING:
        print(f"{address} says {health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
