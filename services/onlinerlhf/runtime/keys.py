"""Every Redis key of a run, in one hash slot."""

from dataclasses import dataclass

from onlinerlhf.core.samples import Stage


@dataclass(frozen=True, slots=True)
class RunKeys:
    """Names the keys of one run. The braces make `{run}` the hash tag, so that a script may touch several of them."""

    run: str

    def key(self, *parts: str) -> str:
        """A key that a room owns."""
        return ":".join((f"onlinerlhf:{{{self.run}}}", *parts))

    def stream(self, stage: Stage) -> str:
        """The work stream of a stage; its length is the backlog."""
        return self.key("stream", stage)

    def dead(self, stage: Stage) -> str:
        """Dead letters of a stage."""
        return self.stream(stage) + ".dead"

    @property
    def group(self) -> str:
        """The one consumer group of every stream."""
        return "workers"

    @property
    def ledger_states(self) -> str:
        """Hash: sample id -> state."""
        return self.key("ledger", "states")

    @property
    def ledger_counts(self) -> str:
        """Hash: admitted, and the number of samples in each state."""
        return self.key("ledger", "counts")

    def attempts(self, stage: Stage) -> str:
        """Hash: sample id -> how often its processing in this stage has started."""
        return self.key("attempts", stage)

    def errors(self, stage: Stage) -> str:
        """Hash: sample id -> kind of the newest error in this stage."""
        return self.key("errors", stage)

    @property
    def pool_new(self) -> str:
        """List: sample ids admitted and not yet fed."""
        return self.key("pool", "new")

    @property
    def pool_reuse(self) -> str:
        """List: what may be fed once more."""
        return self.key("pool", "reuse")

    def prompt(self, prompt_id: str) -> str:
        """An admitted prompt's record."""
        return self.key("prompt", prompt_id)

    def user(self, user_id_hash: str) -> str:
        """What is counted for a user."""
        return self.key("user", user_id_hash)

    @property
    def dedup(self) -> str:
        """Keyed hashes of admitted prompts."""
        return self.key("dedup")

    def idempotency(self, *parts: str) -> str:
        """The receipt given for an idempotency key."""
        return self.key("idempotency", *parts)

    @property
    def latest_version(self) -> str:
        """The newest policy version number that the learner has published."""
        return self.key("latest_version")
