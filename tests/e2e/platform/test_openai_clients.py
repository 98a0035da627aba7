"""The stock `openai` package and lm-eval against `onlinerlhf up`: nothing about them is changed.

The tests share one platform and run in the order they are written in: the first one compares with the model as it is
before anything is learned.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from e2e.platform.real_platform import Platform
from onlinerlhf.local import credentials

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

MODEL = "policy"
MESSAGES: Any = [{"role": "user", "content": "Name three fruits."}]


@pytest.fixture(scope="module")
def key(platform: Platform) -> str:
    """The platform's own."""
    return credentials.read(platform.run_dir).client_key


@pytest.fixture
def stock(platform: Platform, key: str) -> Iterator[openai.OpenAI]:
    """As anybody makes it."""
    with openai.OpenAI(base_url=f"http://{platform.endpoints.http}/v1", api_key=key, max_retries=0) as client:
        yield client


CAPITALS = [
    {"question": "The sky is", "choices": [" blue", " a kind of bread", " seven"], "label": 0},
    {"question": "Two and two are", "choices": [" four", " red apples"], "label": 0},
    {"question": "A dog can", "choices": [" bark at the moon", " fly"], "label": 0},
]
SENTENCES = [
    {"text": "The quick brown fox jumps over the lazy", "last": " dog"},
    {"text": "Once upon a", "last": " time, there was a king"},
    {"text": "Café und Straße:", "last": " naïve €uro 漢字"},
]
CHOICE_TASK = """
task: tiny_choices
dataset_path: json
dataset_kwargs: {data_files: {test: %s}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: label
target_delimiter: ""
metric_list: [{metric: acc}]
"""
LAST_WORD_TASK = """
task: tiny_last_words
dataset_path: json
dataset_kwargs: {data_files: {test: %s}}
test_split: test
output_type: loglikelihood
doc_to_text: "{{text}}"
doc_to_target: "{{last}}"
target_delimiter: ""
metric_list: [{metric: perplexity, aggregation: perplexity, higher_is_better: false}, {metric: acc}]
"""


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    """Two tasks of our own: a directory that lm-eval includes."""
    directory = tmp_path / "tasks"
    directory.mkdir()
    for name, task, rows in (("choices", CHOICE_TASK, CAPITALS), ("last_words", LAST_WORD_TASK, SENTENCES)):
        data = tmp_path / f"{name}.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        (directory / f"{name}.yaml").write_text(task % data)
    return directory


def test_lm_eval_measures_the_log_likelihoods_that_the_model_has(
    platform: Platform, key: str, models: Path, tasks: Path, tmp_path: Path
) -> None:
    samples = _lm_eval(platform.endpoints.http, key, tokenizer=models / "sft", tasks=tasks, out=tmp_path / "out")
    asked = [
        (context, continuation, float(logprob), greedy == "True")
        for sample in samples
        for (context, continuation), (logprob, greedy) in _requests(sample)
    ]
    assert len(asked) == 3 + 2 + 2 + 3
    expected = _log_likelihoods(models / "sft", [(context, continuation) for context, continuation, _, _ in asked])
    for (_, continuation, logprob, greedy), (true_logprob, true_greedy) in zip(asked, expected, strict=True):
        assert logprob == pytest.approx(true_logprob, abs=1e-4), continuation
        assert greedy == true_greedy, continuation


def test_the_one_model_is_listed(stock: openai.OpenAI) -> None:
    assert [model.id for model in stock.models.list()] == [MODEL]
    assert stock.models.retrieve(MODEL).owned_by == "onlinerlhf"


def test_chat_with_two_answers_and_logprobs(stock: openai.OpenAI) -> None:
    raw = stock.chat.completions.with_raw_response.create(
        model=MODEL, messages=MESSAGES, n=2, max_tokens=6, seed=3, logprobs=True, top_logprobs=3, user="ada"
    )
    answer = raw.parse()
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert answer.usage is not None
    num_tokens = 0
    for choice in answer.choices:
        assert choice.finish_reason in ("stop", "length")
        assert choice.logprobs is not None and choice.logprobs.content is not None
        num_tokens += len(choice.logprobs.content)
        for token in choice.logprobs.content:
            assert len(token.top_logprobs) == 3
            assert token.logprob <= token.top_logprobs[0].logprob <= 0
    assert answer.usage.completion_tokens == num_tokens <= 12
    sample_ids = [(choice.model_extra or {})["sample_id"] for choice in answer.choices]
    assert len(set(sample_ids)) == 2
    assert raw.headers["x-onlinerlhf-sample-id"] == ",".join(sample_ids)
    version = raw.headers["x-onlinerlhf-policy-version"].split(",")[0]
    assert answer.system_fingerprint == f"v{version}"
    assert int(version) >= 1


def test_a_seed_makes_an_answer_repeatable_and_the_answers_of_one_request_differ(stock: openai.OpenAI) -> None:
    twice = [
        stock.chat.completions.create(model=MODEL, messages=MESSAGES, n=2, max_tokens=8, seed=11) for _ in range(2)
    ]
    first, second = ([choice.message.content for choice in answer.choices] for answer in twice)
    if twice[0].system_fingerprint == twice[1].system_fingerprint:
        assert first == second
    assert first[0] != first[1]


def test_a_stream_is_the_answer_in_pieces(stock: openai.OpenAI) -> None:
    stream = stock.chat.completions.create(
        model=MODEL, messages=MESSAGES, max_tokens=8, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    finished = [choice for chunk in chunks for choice in chunk.choices if choice.finish_reason is not None]
    assert len(finished) == 1
    assert (finished[0].model_extra or {})["policy_version"] >= 1
    usage = chunks[-1].usage
    assert usage is not None and 1 <= usage.completion_tokens <= 8
    assert sum(bool(choice.delta.content) for chunk in chunks for choice in chunk.choices) >= 2


def test_consent_retries_and_feedback_go_as_extras(platform: Platform, stock: openai.OpenAI, key: str) -> None:
    def ask() -> Any:
        return stock.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": "Which tree is the tallest of all?"}],
            extra_headers={"Idempotency-Key": "trees"},
            extra_body={"consent": {"notice_version": "1", "shown_at": time.time() - 60}, "use_case": "open_qa"},
            max_tokens=4,
        )

    first = ask()
    sample_id = first.choices[0].sample_id
    for _ in range(50):
        # The receipt of an answer is completed when the client already has it.
        try:
            feedback: Any = stock.post(
                "/feedback", cast_to=object, body={"kind": "thumb", "sample_id": sample_id, "up": True}
            )
        except openai.NotFoundError:
            time.sleep(0.1)
            continue
        break
    assert feedback["object"] == "feedback"


def test_errors_are_the_packages_own(platform: Platform, stock: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        stock.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=0)
    assert (refused.value.code, refused.value.param) == ("invalid", "max_tokens")
    with pytest.raises(openai.BadRequestError) as unsupported:
        stock.chat.completions.create(model=MODEL, messages=MESSAGES, response_format={"type": "json_object"})
    assert unsupported.value.code == "unsupported_parameter"
    with pytest.raises(openai.NotFoundError):
        stock.chat.completions.create(model="another", messages=MESSAGES)
    with (
        openai.OpenAI(base_url=str(stock.base_url), api_key="wrong", max_retries=0) as stranger,
        pytest.raises(openai.AuthenticationError),
    ):
        stranger.models.list()


def _lm_eval(address: str, key: str, *, tokenizer: Path, tasks: Path, out: Path) -> list[dict[str, Any]]:
    """All samples of both tasks."""
    model_args = [
        f"model={MODEL}",
        f"base_url=http://{address}/v1/completions",
        "tokenizer_backend=huggingface",
        f"tokenizer={tokenizer}",
        "max_length=500",
        "max_retries=1",
    ]
    command = [sys.executable, "-m", "lm_eval", "run", "--model", "local-completions"]
    command += ["--model_args", ",".join(model_args), "--tasks", "tiny_choices,tiny_last_words"]
    command += ["--include_path", str(tasks), "--batch_size", "2", "--output_path", str(out), "--log_samples"]
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    home = {"HF_HOME": str(out / "hf"), "OPENAI_API_KEY": key}
    run = subprocess.run(command, env=os.environ | offline | home, capture_output=True, text=True, timeout=200)
    assert run.returncode == 0, run.stderr[-2_000:]
    files = sorted(out.rglob("samples_*.jsonl"))
    assert len(files) == 2
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def _requests(sample: dict[str, Any]) -> Iterator[tuple[tuple[str, str], tuple[str, str]]]:
    for arguments, (reply,) in zip(sample["arguments"].values(), sample["resps"], strict=True):
        yield (arguments["arg_0"], arguments["arg_1"]), (reply[0], str(reply[1]))


def _log_likelihoods(directory: Path, pairs: list[tuple[str, str]]) -> list[tuple[float, bool]]:
    """The same by transformers: sum of log p(token | tokens before it) over the continuation, nats."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(directory)
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    results = []
    for context, continuation in pairs:
        token_ids = tokenizer(context + continuation, add_special_tokens=False).input_ids
        start = len(tokenizer(context, add_special_tokens=False).input_ids)
        with torch.no_grad():
            logprobs = model(torch.tensor([token_ids])).logits[0].log_softmax(-1)
        at = torch.arange(start - 1, len(token_ids) - 1)
        chosen = logprobs[at, torch.tensor(token_ids[start:])]
        results.append((float(chosen.sum()), bool((logprobs[at].max(-1).values == chosen).all())))
    return results
