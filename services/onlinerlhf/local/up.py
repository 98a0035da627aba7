"""`onlinerlhf up`: everything on this machine until Ctrl-C."""

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from onlinerlhf.local.endpoints import Endpoints
from onlinerlhf.local.live import watch
from onlinerlhf.local.monitor import Monitor
from onlinerlhf.local.platform import DEFAULT_MAX_WORKERS, PlatformSpec, plan
from onlinerlhf.local.running import running
from onlinerlhf.local.sections import Sections, merge, parse_setting, read_config
from onlinerlhf.local.signals import OnKill, run_until_signal
from onlinerlhf.local.snapshot import Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class UpOptions:
    """What the command line says."""

    home: Path
    run: str
    policy_dir: Path | None
    reward_dir: Path | None
    rollout_workers: int
    max_rollout_workers: int | None
    """None: 8, or rollout_workers where that is more."""
    redis_url: str | None
    gateway_port: int | None
    http_port: int | None
    config: Path | None
    settings: tuple[str, ...]
    plain: bool

    def spec(self) -> PlatformSpec:
        """The platform this asks for."""
        models = self.home / "models"
        return PlatformSpec(
            run_dir=(self.home / "runs" / self.run).resolve(),
            run_id=self.run,
            policy_dir=(self.policy_dir or models / "sft").resolve(),
            reward_dir=(self.reward_dir or models / "reward").resolve(),
            rollout_workers=self.rollout_workers,
            max_rollout_workers=self.max_rollout_workers or max(DEFAULT_MAX_WORKERS, self.rollout_workers),
            redis_url=self.redis_url,
            gateway_port=self.gateway_port,
            http_port=self.http_port,
            overrides=self._overrides(),
        )

    def _overrides(self) -> Sections:
        overrides: Sections = read_config(self.config) if self.config is not None else {}
        for setting in self.settings:
            overrides = merge(overrides, parse_setting(setting))
        return overrides


def up(options: UpOptions) -> None:
    """Run until a signal, then drain."""
    console = Console()
    spec = options.spec()

    async def main(on_kill: OnKill) -> None:
        def say(line: str) -> None:
            console.print(line, soft_wrap=True, highlight=False, markup=False)

        async with running(plan(spec), report=say) as platform:
            on_kill(platform.kill_all)
            async with Monitor(platform.endpoints) as monitor:
                say(ready_line(platform.endpoints(), await monitor.snapshot()))
                await watch(monitor, console, plain=options.plain)

    run_until_signal(main)
    console.print("stopped; nothing is left running", highlight=False)


def ready_line(endpoints: Endpoints, snapshot: Snapshot) -> str:
    """What a newcomer needs to know next."""
    run_dir = Path(endpoints.run_dir)
    line = (
        f"ready: gateway on {endpoints.gateway}, OpenAI-compatible on http://{endpoints.http}/v1, "
        f"keys in {run_dir / 'credentials.json'}, logs in {run_dir / 'logs'}; Ctrl-C drains"
    )
    if snapshot.learner is None:
        return line
    return f"{line}; a learner step takes {snapshot.learner.batch_size} responses (learner.batch_size)"
