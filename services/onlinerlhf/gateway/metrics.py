"""What the gateway counts. Labels are words of our own, never something a client sent."""

from prometheus_client import Counter, Gauge, Histogram

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

PROMPTS = Counter(
    "onlinerlhf_gateway_prompts",
    "Prompts offered as training data, by verdict (admitted, replayed, refused) and reason",
    ["verdict", "reason"],
)
ADMIT_SECONDS = Histogram(
    "onlinerlhf_gateway_admit_seconds", "Time from an offer to its verdict, screens included", buckets=_SECONDS
)
ANSWERS = Counter(
    "onlinerlhf_gateway_answers", "Answers to users, by outcome (completed, refused, failed)", ["outcome"]
)
ANSWER_TOKENS = Counter("onlinerlhf_gateway_answer_tokens", "Tokens streamed to users")
FIRST_TOKEN_SECONDS = Histogram(
    "onlinerlhf_gateway_first_token_seconds", "Time from an accepted request to the first token", buckets=_SECONDS
)
POOL_SIZE = Gauge("onlinerlhf_gateway_pool_size", "Prompts waiting in the pool: new ones and further epochs", ["kind"])
FED = Counter("onlinerlhf_gateway_fed", "Samples moved from the pool to [prompts]", ["kind"])
