"""`onlinerlhf status` and `onlinerlhf doctor`: look at a platform that is already running."""

import asyncio
import json

from rich.console import Console

from onlinerlhf.local.doctor import Finding, Severity, diagnose
from onlinerlhf.local.endpoints import Endpoints
from onlinerlhf.local.monitor import Monitor
from onlinerlhf.local.snapshot import Snapshot
from onlinerlhf.local.status import as_json, as_table

DOCTOR_GAP_SECONDS = 2.0


def show_status(endpoints: Endpoints, *, json_output: bool) -> None:
    """One picture."""
    snapshot = asyncio.run(_snapshot(endpoints))
    if json_output:
        print(json.dumps(as_json(snapshot), indent=2))
    else:
        Console().print(as_table(snapshot))


def run_doctor(endpoints: Endpoints) -> bool:
    """Print findings; False when something is broken."""
    findings = asyncio.run(_findings(endpoints))
    for finding in findings:
        print(f"{finding.severity}: {finding.edge}: {finding.message}")
    if not findings:
        print("nothing is stuck")
    return not any(finding.severity is Severity.BROKEN for finding in findings)


async def _snapshot(endpoints: Endpoints) -> Snapshot:
    async with Monitor(lambda: endpoints) as monitor:
        return await monitor.snapshot()


async def _findings(endpoints: Endpoints) -> list[Finding]:
    async with Monitor(lambda: endpoints) as monitor:
        earlier = await monitor.snapshot()
        await asyncio.sleep(DOCTOR_GAP_SECONDS)
        return diagnose(await monitor.snapshot(), earlier)
