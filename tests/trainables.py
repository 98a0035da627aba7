"""Prompts that may be learned from, as the screens would make them."""

from onlinerlhf.core.samples import ConsentProof, Prompt
from onlinerlhf.gateway.access.callers import ApiKey, Caller, KeyClass, Scope
from onlinerlhf.gateway.access.identity import Digests
from onlinerlhf.gateway.admission.caps import cap_score
from onlinerlhf.gateway.admission.consent import Notices, TrainablePrompt, admit
from onlinerlhf.gateway.admission.dedup import fingerprint
from onlinerlhf.gateway.admission.normalise import comparable
from onlinerlhf.gateway.admission.splits import Split

DIGESTS = Digests(b"a key of 32 bytes, for tests only")
SHOWN_AT = 1_700_000_000.0
NOTICES = Notices(versions=frozenset({"1"}), seconds=3600.0)


def a_key(*, organisation: str = "", key_class: KeyClass = KeyClass.PLAYGROUND) -> ApiKey:
    """That may do everything."""
    return ApiKey(
        key_id="0123456789ab",
        name="tests",
        key_class=key_class,
        organisation=organisation,
        scopes=frozenset(Scope),
        created_at_seconds=1.0,
    )


def a_caller(user: str = "ada", *, organisation: str = "", key_class: KeyClass = KeyClass.PLAYGROUND) -> Caller:
    """On behalf of a user."""
    owner = DIGESTS.owner(organisation, user)
    key = a_key(organisation=organisation, key_class=key_class)
    return Caller(key=key, owner=owner, tenant=DIGESTS.tenant(organisation, owner))


def a_trainable(
    *user_turns: str,
    sample_id: str,
    user: str = "ada",
    organisation: str = "",
    split: Split = Split.TRAIN,
    shown_at: float = SHOWN_AT,
    score: int | None = None,
) -> TrainablePrompt:
    """With the user's turns given; shown_at is when its owner consented, score what the cap goes by."""
    caller = a_caller(user, organisation=organisation)
    prefixes = fingerprint([comparable(turn) for turn in user_turns], DIGESTS.key)
    prompt = Prompt(
        sample_id=sample_id,
        prompt_id=sample_id,
        owner=caller.owner,
        tenant=caller.tenant,
        consent=ConsentProof(key_class="playground", notice_version="1", shown_at_seconds=shown_at),
        text="\n\n".join(user_turns),
        token_ids=(1, 2, 3),
        epoch=0,
        admitted_at_seconds=shown_at,
    )
    return admit(
        prompt,
        caller,
        fingerprint=prefixes,
        cap_score=cap_score(prefixes, DIGESTS) if score is None else score,
        split=split,
        notices=NOTICES,
        now=shown_at,
    )
