"""Every Redis key of a run, in one hash slot."""

from dataclasses import dataclass, field

from onlinerlhf.core.samples import Stage


@dataclass(frozen=True, slots=True)
class RunKeys:
    """Names the keys of one run. The braces make `{run}` the hash tag, so that a script may touch several of them."""

    run: str
    prefix: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "prefix", f"onlinerlhf:{{{self.run}}}:")

    def key(self, *parts: str) -> str:
        """A key that a room owns."""
        return self.prefix + ":".join(parts)

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
    def ledger_owners(self) -> str:
        """Hash: sample id -> `<owner>|<shown at>`: whose it is, and the whole second their consent dates from."""
        return self.key("ledger", "owners")

    @property
    def blocked(self) -> str:
        """Hash: owner -> `erased`, or `withdrawn:<second>`: consent up to then does not count."""
        return self.key("blocked")

    def erased_versions(self, owner: str) -> str:
        """Set: policy versions whose step used a sample of an erased owner."""
        return self.key("erased", owner)

    def pool_new(self, tenant: str) -> str:
        """List: sample ids of a tenant admitted and not yet fed."""
        return self.key("pool", "new", tenant)

    @property
    def pool_tenants(self) -> str:
        """Sorted set: tenants with prompts waiting, by the training mass each has had."""
        return self.key("pool", "tenants")

    @property
    def pool_reuse(self) -> str:
        """List: what may be fed once more."""
        return self.key("pool", "reuse")

    def prompt(self, prompt_id: str) -> str:
        """An admitted prompt's record."""
        return self.key("prompt", prompt_id)

    @property
    def prompts_by_age(self) -> str:
        """Sorted set: prompt id -> second of its admission, held-out prompts included."""
        return self.key("prompts_by_age")

    def prompts_of(self, owner: str) -> str:
        """Sorted set: an owner's admitted prompts, by the keyed hash that the cap goes by."""
        return self.key("prompts_of", owner)

    @property
    def dedup(self) -> str:
        """Hash: keyed digest of a prefix -> the prompt that has it."""
        return self.key("dedup")

    def receipt(self, sample_id: str) -> str:
        """Hash: who received an answer or a receipt."""
        return self.key("receipt", sample_id)

    def receipts_of(self, owner: str) -> str:
        """Sorted set: an owner's receipts by the second they were given."""
        return self.key("receipts_of", owner)

    def idempotency(self, *parts: str) -> str:
        """The receipt given for an idempotency key."""
        return self.key("idempotency", *parts)

    @property
    def latest_version(self) -> str:
        """The newest policy version number that the learner has published."""
        return self.key("latest_version")

    @property
    def cordoned(self) -> str:
        """Sorted set: rollout worker that takes nothing new -> when that lapses, in ms by the server's clock."""
        return self.key("cordoned")
