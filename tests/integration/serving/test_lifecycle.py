"""Start, health, drain and end of a service."""

import asyncio
import json
import sys
import urllib.request

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from integration.serving.support import running, terminate
from onlinerlhf.core.errors import StartupError
from onlinerlhf.runtime.channels import open_channel
from onlinerlhf.runtime.config import ServiceConfig
from onlinerlhf.runtime.health import Health
from onlinerlhf.runtime.serving import run_service
from onlinerlhf.v1 import diagnostics_pb2, diagnostics_pb2_grpc, gateway_pb2, gateway_pb2_grpc
from redis_servers import free_port

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
GATEWAY = "onlinerlhf.v1.GatewayService"


async def test_health_flips_with_the_components_and_diagnostics_say_why() -> None:
    async with running() as service, open_channel(service.address) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=GATEWAY), timeout=10)
        assert (await watch.read()).status == SERVING
        service.health.set("redis", ok=False, reason="Redis cannot be reached")
        assert (await watch.read()).status == NOT_SERVING
        stub = diagnostics_pb2_grpc.DiagnosticsServiceStub(channel)
        answer = await stub.GetComponents(diagnostics_pb2.GetComponentsRequest(), timeout=5)
        [component] = answer.components
        assert (component.name, component.ok, component.reason) == ("redis", False, "Redis cannot be reached")
        assert answer.room == "test" and answer.uptime_seconds > 0
        service.health.set("redis", ok=True)
        assert (await watch.read()).status == SERVING
        watch.cancel()


async def test_reflection_lists_the_services() -> None:
    async with running() as service, open_channel(service.address) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        answer = await stub.ServerReflectionInfo(iter([request]), timeout=5).read()
    names = [service.name for service in answer.list_services_response.service]
    assert {GATEWAY, "onlinerlhf.v1.DiagnosticsService", "grpc.health.v1.Health"} <= set(names)


async def test_a_drain_finishes_background_work_and_calls_in_flight() -> None:
    order: list[str] = []

    async def work(stop: asyncio.Event) -> None:
        await stop.wait()
        order.append("stop seen")
        await asyncio.sleep(0.2)
        order.append("drained")

    async with running(background={"work": work}) as service, open_channel(service.address) as channel:
        stub = gateway_pb2_grpc.GatewayServiceStub(channel)

        async def call() -> None:
            await stub.SubmitPrompt(gateway_pb2.SubmitPromptRequest(user_id="hang"), timeout=5)
            order.append("call answered")

        async with asyncio.TaskGroup() as group:
            group.create_task(call())
            await service.servicer.started.wait()
            terminate()
            await asyncio.sleep(0.05)
            assert not service.health.ready()
            status = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=2)
            assert status.status == NOT_SERVING
            await asyncio.sleep(0.4)
            assert not service.task.done()
            service.servicer.release.set()
        async with asyncio.timeout(5):
            await service.task
    assert order == ["stop seen", "drained", "call answered"]


async def test_a_background_task_that_does_not_drain_is_cancelled_in_time() -> None:
    async def stubborn(stop: asyncio.Event) -> None:
        await asyncio.sleep(60)

    loop = asyncio.get_running_loop()
    async with running(background={"stubborn": stubborn}, drain_seconds=0.3) as service:
        started = loop.time()
        terminate()
        async with asyncio.timeout(5):
            await service.task
    assert 0.3 <= loop.time() - started < 2


async def test_a_background_task_that_fails_is_restarted_and_health_says_so_meanwhile() -> None:
    runs = 0

    async def flaky(stop: asyncio.Event) -> None:
        nonlocal runs
        runs += 1
        if runs == 1:
            raise ValueError("what is my secret?")
        await stop.wait()

    async with running(background={"flaky": flaky}) as service:
        [component] = service.health.components()
        assert (component.name, component.ok, component.reason) == ("flaky", False, "failed (ValueError), is restarted")
        await service.health.wait_ready(3)
        assert runs == 2


@pytest.mark.parametrize("in_a_group", [False, True], ids=["raised", "raised in a task group"])
async def test_a_background_task_that_cannot_start_ends_the_service(in_a_group: bool) -> None:
    async def fail() -> None:
        await asyncio.sleep(0.05)
        raise StartupError("no such model")

    async def hopeless(stop: asyncio.Event) -> None:
        if not in_a_group:
            await fail()
        async with asyncio.TaskGroup() as group:
            group.create_task(fail(), name="fail")

    async with running(background={"hopeless": hopeless}) as service:
        with pytest.raises(StartupError, match=r"^no such model$"):
            async with asyncio.timeout(5):
                await service.task


async def test_a_taken_port_is_a_startup_error_that_names_it() -> None:
    async with running() as service:
        with pytest.raises(StartupError, match=f"cannot listen on {service.address}"):
            await run_service(
                "other", ServiceConfig(listen=service.address), health=Health("other"), register=lambda server: []
            )


async def test_metrics_are_served_where_a_port_is_set_and_a_taken_one_is_a_startup_error() -> None:
    port = free_port()
    async with running(metrics_port=port):
        address = f"http://127.0.0.1:{port}/metrics"
        page = await asyncio.to_thread(lambda: urllib.request.urlopen(address, timeout=5).read().decode())
        assert "onlinerlhf_rpc_seconds" in page
        config = ServiceConfig(listen="127.0.0.1:0", metrics_port=port)
        with pytest.raises(StartupError, match=f"cannot serve metrics on 127.0.0.1:{port}"):
            await run_service("other", config, health=Health("other"), register=lambda server: [])


async def test_a_call_waits_for_a_peer_that_is_not_there_yet_as_long_as_its_deadline() -> None:
    address = f"127.0.0.1:{free_port()}"
    async with open_channel(address) as channel:
        stub = gateway_pb2_grpc.GatewayServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.SubmitPrompt(gateway_pb2.SubmitPromptRequest(), timeout=0.3)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_two_addresses_take_turns_and_one_that_is_gone_is_left_out() -> None:
    async with running() as first, running() as second:
        target = f"ipv4:{first.address},{second.address}"
        async with open_channel(target) as channel:
            stub = gateway_pb2_grpc.GatewayServiceStub(channel)
            async with asyncio.timeout(5):
                while not (first.servicer.started.is_set() and second.servicer.started.is_set()):
                    await stub.SubmitPrompt(gateway_pb2.SubmitPromptRequest(), timeout=5)
            first.task.cancel()
            await asyncio.wait([first.task])
            for _ in range(10):
                await stub.SubmitPrompt(gateway_pb2.SubmitPromptRequest(), timeout=5)


async def test_a_process_that_cannot_start_says_why_in_one_line_and_exits_1() -> None:
    code = (
        "from onlinerlhf.runtime import serving\n"
        "from onlinerlhf.core.errors import ConfigError\n"
        "async def compose(): raise ConfigError('[gateway] listen: unknown key')\n"
        "serving.main('gateway', compose)\n"
    )
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stderr=asyncio.subprocess.PIPE)
    _, stderr = await asyncio.wait_for(child.communicate(), 20)
    assert (child.returncode, stderr) == (1, b"onlinerlhf gateway: [gateway] listen: unknown key\n")


async def test_a_process_that_is_stopped_while_it_still_imports_exits_0() -> None:
    # As the first process of a container it would otherwise not even notice, and be killed at the end of its grace.
    code = (
        "import time\n"
        "from onlinerlhf.runtime import serving\n"
        "async def compose():\n"
        "    print('importing', flush=True)\n"
        "    time.sleep(60)\n"
        "serving.main('gateway', compose)\n"
    )
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    assert child.stdout is not None
    async with asyncio.timeout(30):
        assert await child.stdout.readline() == b"importing\n"
        child.terminate()
        assert await child.wait() == 0


async def test_a_process_drains_on_sigterm_exits_0_and_logs_json_alone() -> None:
    code = """
import asyncio
from onlinerlhf.runtime import logs, serving
from onlinerlhf.runtime.config import ServiceConfig
from onlinerlhf.runtime.health import Health

async def work(stop):
    await stop.wait()

async def compose():
    logs.setup("gateway", level="INFO")
    await serving.run_service("gateway", ServiceConfig(), health=Health("gateway"), register=lambda server: [],
                              background={"work": work})

serving.main("gateway", compose)
"""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-X", "dev", "-c", code, stderr=asyncio.subprocess.PIPE
    )
    assert child.stderr is not None
    async with asyncio.timeout(30):
        first = await child.stderr.readline()
        child.terminate()
        rest = await child.stderr.read()
        assert await child.wait() == 0
    lines = [json.loads(line) for line in (first + rest).splitlines()]
    assert [line["event"] for line in lines] == ["listening", "draining", "stopped"]
    assert lines[0]["address"].startswith("127.0.0.1:") and lines[0]["address"] != "127.0.0.1:0"
    assert {line["room"] for line in lines} == {"gateway"}
