"""A prompt for tests that need one and do not care which."""

from dataclasses import replace
from typing import Any

from onlinerlhf.core.samples import ConsentProof, Prompt

OWNER = "0123456789abcdef0123456789abcdef"
TENANT = "fedcba9876543210fedcba9876543210"
CONSENT = ConsentProof(key_class="playground", notice_version="1", shown_at_seconds=1000.0)
PROOF = f"{OWNER}|1000"
"""As the ledger has it."""

_PROMPT = Prompt(
    sample_id="s1",
    prompt_id="s1",
    owner=OWNER,
    tenant=TENANT,
    consent=CONSENT,
    text="Name three fruits.",
    token_ids=(1, 2, 3),
    epoch=0,
    admitted_at_seconds=1000.0,
)


def a_prompt(**changes: Any) -> Prompt:
    """An admitted prompt; with another sample id, a prompt of its own unless told otherwise."""
    if "sample_id" in changes:
        changes.setdefault("prompt_id", changes["sample_id"])
    return replace(_PROMPT, **changes)
