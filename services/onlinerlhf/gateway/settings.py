"""What each part of the gateway takes of its configuration."""

from dataclasses import replace
from functools import partial

from onlinerlhf.gateway.access.callers import KeyClass
from onlinerlhf.gateway.access.limit_defaults import LimitDefaults
from onlinerlhf.gateway.admission import decontamination, templates
from onlinerlhf.gateway.admission.consent import Notices
from onlinerlhf.gateway.admission.pool import Limits
from onlinerlhf.gateway.admission.screens import Rules
from onlinerlhf.gateway.admission.splits import Splits
from onlinerlhf.gateway.config import GatewayConfig
from onlinerlhf.gateway.requests.form import FormLimits
from onlinerlhf.gateway.requests.opening import OpeningLimits, encode_turns
from onlinerlhf.models.tokenizer import PromptTokenizer


def rules(config: GatewayConfig, tokenizer: PromptTokenizer, splits: Splits) -> Rules:
    """What the screens go by. Reads the files that are named; raises ConfigError."""
    made = Rules(
        notices=Notices(versions=frozenset(config.notice_versions), seconds=config.notice_seconds),
        max_tokens=config.max_prompt_tokens,
        pii_policy=config.pii_policy[KeyClass.PLAYGROUND],
        encode=partial(encode_turns, tokenizer),
        splits=splits,
    )
    if config.templates_file is not None:
        made = replace(made, templates=templates.load(config.templates_file))
    if config.decontamination_file is not None:
        made = replace(made, evaluation_prompts=decontamination.load(config.decontamination_file))
    return made


def opening_limits(config: GatewayConfig) -> OpeningLimits:
    """What a request may ask for."""
    form = FormLimits(
        max_prompt_bytes=config.max_prompt_bytes,
        max_turns=config.max_messages,
        max_answers=config.max_answers,
        max_response_tokens=config.max_response_tokens,
    )
    return OpeningLimits(form=form, max_context_tokens=config.max_context_tokens)


def limit_defaults(config: GatewayConfig) -> LimitDefaults:
    """Rates and quotas where a key has none of its own."""
    return LimitDefaults(
        classes={
            KeyClass.PLAYGROUND: config.playground_limits.limits(),
            KeyClass.PRODUCTION: config.production_limits.limits(),
        },
        user=config.user_limits.limits(),
        organisation=config.organisation_limits.limits(),
    )


def pool_limits(config: GatewayConfig) -> Limits:
    """Bounds of the pool."""
    return Limits(
        prompts_per_user=config.prompts_per_user,
        pool_bound=config.pool_bound,
        prompts_bound=config.prompts_bound,
        max_epochs=config.max_epochs,
        retention_seconds=config.retention_seconds,
    )
