"""Keys, callers and stores for tests of receipts, feedback and snapshots."""

from collections.abc import Sequence

from redis.asyncio import Redis

from onlinerlhf.core.samples import VersionSpan
from onlinerlhf.gateway.access.callers import ApiKey, Caller, KeyClass, Scope
from onlinerlhf.gateway.access.identity import Digests, HashKey
from onlinerlhf.gateway.kept.answers import Answers
from onlinerlhf.gateway.kept.feedback import Feedback
from onlinerlhf.gateway.pii.findings import Finding, Kind
from onlinerlhf.gateway.pii.policy import Policy
from onlinerlhf.gateway.pii.scanner import ScreenFailed
from onlinerlhf.gateway.requests.receipts import Receipts
from onlinerlhf.runtime.keys import RunKeys

HASH_KEY = b"a key for tests of receipts"
DIGESTS = Digests(HASH_KEY)


def api_key(
    key_id: str = "k1",
    *,
    key_class: KeyClass = KeyClass.PLAYGROUND,
    scopes: Sequence[Scope] = tuple(Scope)[:2],
    organisation: str = "acme",
) -> ApiKey:
    """A key that may generate and give feedback."""
    return ApiKey(
        key_id=key_id,
        name="test",
        key_class=key_class,
        organisation=organisation,
        scopes=frozenset(scopes),
        created_at_seconds=1000.0,
    )


def caller(user: str = "ada", key: ApiKey | None = None) -> Caller:
    """A call on behalf of a user."""
    owner = DIGESTS.owner("acme", user)
    return Caller(key=key or api_key(), owner=owner, tenant=DIGESTS.tenant("acme", owner))


class MarkScanner:
    """Finds `secret` as an e-mail address; fails on command."""

    def __init__(self) -> None:
        self.fails = False

    async def close(self) -> None:
        """It holds nothing."""

    async def scan(self, text: str) -> list[Finding]:
        """One finding a mark."""
        if self.fails:
            raise ScreenFailed("the scanner is gone")
        start = text.find("secret")
        return [] if start < 0 else [Finding(kind=Kind.EMAIL, start=start, end=start + len("secret"))]


class Stores:
    """What one gateway has of them."""

    def __init__(self, client: Redis, keys: RunKeys, *, policy: Policy = Policy.DROP) -> None:
        hash_key = HashKey(client, keys, HASH_KEY)
        self.scanner = MarkScanner()
        self.receipts = Receipts(client, keys, hash_key, idempotency_seconds=600, retention_seconds=3600)
        self.feedback = Feedback(
            client, keys, hash_key, self.receipts, self.scanner, retention_seconds=3600, max_correction_bytes=1000
        )
        policies = {KeyClass.PLAYGROUND: policy, KeyClass.PRODUCTION: Policy.DROP}
        self.answers = Answers(client, keys, self.scanner, policies=policies, retention_seconds=3600)

    async def answer(
        self, who: Caller, *, num: int = 1, response: str = "an answer", version: int = 3, prompt: str = "a question"
    ) -> tuple[str, ...]:
        """Give receipts, complete and keep answers to one prompt; their sample ids."""
        claim = await self.receipts.claim(who, idempotency_key="", body=prompt.encode(), num_samples=num)
        for place, sample_id in enumerate(claim.sample_ids):
            spans = [VersionSpan(version=version, num_tokens=2)]
            await self.receipts.complete(sample_id, versions=spans, num_tokens=2)
            text = response if num == 1 else f"{response} {place}"
            await self.answers.keep(sample_id, who, prompt=[("user", prompt)], response=text, version=version)
        return claim.sample_ids
