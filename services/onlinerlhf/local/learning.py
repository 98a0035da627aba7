"""The story a demo tells between a platform that is ready and its drain."""

import asyncio
import time
from collections.abc import Sequence

import grpc

from onlinerlhf.core.errors import OnlineRLHFError, WaitTimeout
from onlinerlhf.core.samples import Stage
from onlinerlhf.learner.training.progress import Reporter
from onlinerlhf.local import credentials
from onlinerlhf.local.demo_settings import DemoSettings
from onlinerlhf.local.evaluate import Evaluation, JudgedAnswer, answer_all, require_version
from onlinerlhf.local.monitor import Monitor, ledger_view
from onlinerlhf.local.probes import fresh_channel
from onlinerlhf.local.report import Outcome, read_steps
from onlinerlhf.local.running import RunningPlatform
from onlinerlhf.local.snapshot import Snapshot
from onlinerlhf.local.status import as_line, learner_text
from onlinerlhf.local.submit import NOTICE_VERSION
from onlinerlhf.runtime.ledger import Ledger, LedgerCounts
from onlinerlhf.v1 import learner_pb2, learner_pb2_grpc
from onlinerlhf.world.users import UserPrompt, prompts, users
from onlinerlhf_client import AsyncClient, Consent, Submission

POLL_SECONDS = 1.0
IDLE_POLLS = 5
"""Looks in a row that find nothing on its way before the wait for steps ends."""
AUDIT_TRIES = 5


class Phases:
    """Where the time goes."""

    def __init__(self) -> None:
        self._began = self._last = time.monotonic()
        self.seconds: dict[str, float] = {}

    def done(self, name: str) -> None:
        """The phase that ends now."""
        now = time.monotonic()
        self.seconds[name] = now - self._last
        self._last = now

    @property
    def total(self) -> float:
        """Since the start."""
        return time.monotonic() - self._began


class Demo:
    """The part between a platform that is ready and its drain."""

    def __init__(
        self, settings: DemoSettings, platform: RunningPlatform, monitor: Monitor, says: Reporter, clock: Phases
    ) -> None:
        self._settings = settings
        self._endpoints = platform.endpoints()
        self._run_dir = platform.plan.spec.run_dir
        self._api_key = credentials.read(self._run_dir).client_key
        self._monitor = monitor
        self._says = says
        self._clock = clock

    async def run(self) -> Outcome:
        """The story."""
        settings = self._settings
        # 1. People: those who teach, and those whose prompts are never offered for training.
        people = users(settings.seed, count=settings.num_users)
        held_out = prompts(people.held_out, settings.num_held_out, seed=settings.seed)
        train = prompts(people.train, settings.num_prompts, seed=settings.seed)
        # 2. The SFT policy answers before anything is learned.
        sft = await self._answer("SFT answers", held_out)
        require_version(sft, 1)
        # 3. Users send their prompts, with consent.
        await self._submit(train)
        # 4. The loop learns from them.
        await self._learn()
        # 5. What is learned is on disk and acknowledged, and the workers hold the newest version.
        snapshot = await self._settle()
        # 6. The PPO policy answers the same prompts.
        ppo = await self._answer("PPO answers", held_out)
        return Outcome(
            run_id=self._endpoints.run_id,
            evaluation=Evaluation(sft=sft, ppo=ppo),
            num_submitted=len(train),
            versions_applied=max(0, snapshot.num_updates_applied - 1),
            ledger=ledger_view(await audited_counts(self._monitor.ledger, self._says)),
            seconds=self._clock.total,
            phases=self._clock.seconds,
            steps=read_steps(self._run_dir / "learner" / "steps.jsonl"),
        )

    async def _answer(self, name: str, asked: Sequence[UserPrompt]) -> tuple[JudgedAnswer, ...]:
        bar = self._says.start(name, len(asked))
        answers = await answer_all(
            self._endpoints.gateway, self._api_key, asked, max_tokens=self._settings.max_tokens, on_answer=bar.advance
        )
        self._clock.done(name)
        return answers

    async def _submit(self, asked: Sequence[UserPrompt]) -> None:
        bar = self._says.start("training prompts", len(asked))
        consent = Consent.shown_now(NOTICE_VERSION)
        submissions = [Submission(text=prompt.text, user_id=prompt.user_id, consent=consent) for prompt in asked]
        async with AsyncClient(self._endpoints.gateway, api_key=self._api_key) as client:
            async for result in client.submit_many(submissions):
                result.unwrap()
                bar.advance()
        self._clock.done("training prompts")

    async def _learn(self) -> None:
        """Until all steps are done, nothing more is on its way, or time is up."""
        goal, step, idle_polls = self._settings.num_steps, 0, 0
        bar = self._says.start("PPO steps", goal)
        deadline = time.monotonic() + self._settings.learn_seconds
        while step < goal and idle_polls < IDLE_POLLS and time.monotonic() < deadline:
            await asyncio.sleep(POLL_SECONDS)
            snapshot = await self._monitor.snapshot()
            idle_polls = idle_polls + 1 if is_starved(snapshot) else 0
            if snapshot.learner is not None and snapshot.learner.phase == "stopped":
                raise OnlineRLHFError(f"the learner learns no more: {snapshot.learner.last_error}")
            if snapshot.learner is not None and snapshot.learner.step > step:
                bar.advance(detail=learner_text(snapshot), steps=snapshot.learner.step - step)
                step = snapshot.learner.step
        self._clock.done("PPO steps")

    async def _settle(self) -> Snapshot:
        await checkpoint(self._endpoints.address("learner"), timeout_seconds=self._settings.settle_seconds)
        deadline = time.monotonic() + self._settings.settle_seconds
        while True:
            snapshot = await self._monitor.snapshot()
            if is_settled(snapshot):
                break
            if time.monotonic() > deadline:
                raise WaitTimeout(
                    f"the newest version did not reach every worker within {self._settings.settle_seconds:.0f} s: "
                    + as_line(snapshot)
                )
            await asyncio.sleep(POLL_SECONDS)
        self._says.say(as_line(snapshot))
        self._clock.done("settle")
        return snapshot


async def checkpoint(learner: str, *, timeout_seconds: float) -> None:
    """What is learned is on disk."""
    async with fresh_channel(learner) as channel:
        stub = learner_pb2_grpc.LearnerServiceStub(channel)
        try:
            await stub.Checkpoint(learner_pb2.CheckpointRequest(), timeout=timeout_seconds)
        except grpc.aio.AioRpcError as error:
            code = error.code().name
            raise WaitTimeout(f"the learner wrote no checkpoint within {timeout_seconds:.0f} s ({code})") from None


async def audited_counts(ledger: Ledger, says: Reporter, *, pause_seconds: float = POLL_SECONDS) -> LedgerCounts:
    """The counters, checked against the state of every single sample.

    The states are read one page after another, so the two compare only where no sample moved meanwhile.
    """
    for _ in range(AUDIT_TRIES):
        before, audited, after = await ledger.counts(), await ledger.audit(), await ledger.counts()
        if before == after:
            if audited != after:
                raise OnlineRLHFError(f"the ledger's counters {after} are not those of its samples {audited}")
            return after
        await asyncio.sleep(pause_seconds)
    says.say(f"samples still moved in {AUDIT_TRIES} looks: the ledger's counters were not checked against its samples")
    return after


def is_starved(snapshot: Snapshot) -> bool:
    """The learner collects, and nothing is on its way to it."""
    upstream = (
        snapshot.pool_new
        + snapshot.pool_reuse
        + snapshot.backlog(Stage.PROMPTS)
        + snapshot.backlog(Stage.ROLLOUTS)
        + sum(worker.num_in_flight for worker in snapshot.rollouts)
    )
    learner = snapshot.learner
    return learner is not None and learner.phase == "collecting" and not snapshot.redis_error and upstream == 0


def is_settled(snapshot: Snapshot) -> bool:
    """Every worker that stays serves the learner's newest version."""
    learner = snapshot.learner
    staying = [worker for worker in snapshot.rollouts if worker.state != "draining"]
    return learner is not None and bool(staying) and all(worker.version == learner.version for worker in staying)
