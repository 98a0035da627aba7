"""How much of the time the learner and the sampler sit idle while the whole platform learns.

The demo's models and settings on this machine, everything real. Counted between two looks: after the first steps (start
and warm-up are over) and while the streams are still full. One of the two is always the bottleneck; asynchrony is worth
its trouble when that one never waits. On two cores it is the learner; the sampler's share says how much is left for
more learners' worth of work.
"""

import asyncio
import sys
import tempfile
from pathlib import Path

from claims import Claim

from onlinerlhf.core.errors import WaitTimeout
from onlinerlhf.learner.bootstrap import bootstrap
from onlinerlhf.learner.training.progress import Reporter, reporter
from onlinerlhf.local import credentials
from onlinerlhf.local.demo_settings import DEMO
from onlinerlhf.local.monitor import Monitor
from onlinerlhf.local.platform import PlatformSpec, plan
from onlinerlhf.local.running import running
from onlinerlhf.local.snapshot import LearnerView, RolloutView
from onlinerlhf.local.submit import NOTICE_VERSION
from onlinerlhf.world.users import prompts, users
from onlinerlhf_client import AsyncClient, Consent, Submission

MODELS = Path(".onlinerlhf/models").resolve()
FIRST_STEP, LAST_STEP = 3, 15
WAIT_SECONDS = 300.0
MAX_LEARNER_IDLE = 0.15


def main() -> list[Claim]:
    """Bootstraps the demo's models where they are not there yet."""
    with reporter() as says, tempfile.TemporaryDirectory() as scratch:
        bootstrap(MODELS, seed=DEMO.seed, scale="demo", progress=says)
        learner, sampler = asyncio.run(_measure(Path(scratch) / "run", says))
    return [
        Claim(
            name="learner_idle_share",
            value=learner,
            unit="share",
            goal=f"<={MAX_LEARNER_IDLE}",
            ok=learner <= MAX_LEARNER_IDLE,
        ),
        # No goal: beside one learner it is what the machine has left over.
        Claim(name="sampler_idle_share", value=sampler, unit="share", goal="reported", ok=True),
    ]


async def _measure(run_dir: Path, says: Reporter) -> tuple[float, float]:
    spec = PlatformSpec(
        run_dir=run_dir,
        run_id="idle",
        policy_dir=MODELS / "sft",
        reward_dir=MODELS / "reward",
        overrides=DEMO.sections,
    )
    async with running(plan(spec), report=says.say) as platform:
        people = users(DEMO.seed, count=DEMO.num_users)
        asked = prompts(people.train, DEMO.num_prompts, seed=DEMO.seed)
        api_key, consent = credentials.read(run_dir).client_key, Consent.shown_now(NOTICE_VERSION)
        submissions = [Submission(text=p.text, user_id=p.user_id, consent=consent) for p in asked]
        async with AsyncClient(platform.endpoints().gateway, api_key=api_key) as client:
            async for result in client.submit_many(submissions):
                result.unwrap()
        async with Monitor(platform.endpoints) as monitor:
            first = await _at_step(monitor, FIRST_STEP)
            last = await _at_step(monitor, LAST_STEP)
    return _share(first[0], last[0]), _share(first[1], last[1])


async def _at_step(monitor: Monitor, step: int) -> tuple[LearnerView, RolloutView]:
    try:
        async with asyncio.timeout(WAIT_SECONDS):
            while True:
                snapshot = await monitor.snapshot()
                if snapshot.learner is not None and snapshot.learner.step >= step:
                    return snapshot.learner, snapshot.rollouts[0]
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise WaitTimeout(f"step {step} was not reached within {WAIT_SECONDS:.0f} s") from None


def _share(first: LearnerView | RolloutView, last: LearnerView | RolloutView) -> float:
    """Idle share of the time between two looks, from each look's share of the time before it."""
    idle = last.idle_share * last.observed_seconds - first.idle_share * first.observed_seconds
    return idle / (last.observed_seconds - first.observed_seconds)


if __name__ == "__main__":
    for claim in main():
        print(claim, file=sys.stdout)
