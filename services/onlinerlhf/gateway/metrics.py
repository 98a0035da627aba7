"""What the gateway counts. Labels are words of our own, never something a client sent."""

from prometheus_client import Counter, Gauge, Histogram

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

VERDICTS = Counter("onlinerlhf_gateway_verdicts", "Prompts offered as training data, by verdict", ["verdict"])
SCREEN_SECONDS = Histogram(
    "onlinerlhf_gateway_screen_seconds",
    "Time a prompt spent in one screen of the train path; admit is the pool's script, all is from offer to verdict",
    ["screen"],
    buckets=(0.00005, 0.0001, 0.00025, 0.0005, *_SECONDS),
)
FINDINGS = Counter(
    "onlinerlhf_gateway_findings",
    "Texts offered as training data in which personal data or secrets were found",
    ["kind"],
)
INTAKE_QUEUE = Gauge("onlinerlhf_gateway_intake_queue", "Answered prompts that wait for their training screens")
REQUESTS = Counter(
    "onlinerlhf_gateway_requests",
    "Requests by kind (prompt, answer), outcome (received, completed, refused, failed, cancelled) and reason",
    ["kind", "outcome", "reason"],
)
SUBMIT_SECONDS = Histogram(
    "onlinerlhf_gateway_submit_seconds", "Time from a submission to its receipt, screens included", buckets=_SECONDS
)
ANSWER_TOKENS = Counter("onlinerlhf_gateway_answer_tokens", "Tokens streamed to users")
FIRST_TOKEN_SECONDS = Histogram(
    "onlinerlhf_gateway_first_token_seconds", "Time from an accepted request to the first token", buckets=_SECONDS
)
POOL_SIZE = Gauge("onlinerlhf_gateway_pool_size", "Prompts waiting in the pool: new ones and further epochs", ["kind"])
FED = Counter("onlinerlhf_gateway_fed", "Samples moved from the pool to [prompts]", ["kind"])
