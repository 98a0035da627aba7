"""Training files: what is read, and what each error says."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from onlinerlhf.core.errors import DataError
from onlinerlhf.learner.training.data import (
    Example,
    Ranking,
    load_demonstrations,
    load_prompts,
    load_rankings,
    load_texts,
)
from onlinerlhf.models.tokenizer import PromptTokenizer
from unit.training.conftest import Writer

SECRET = "the fox is red"


def demonstrations(path: Path | list[Path], tokenizer: PromptTokenizer, *, limit: int = 100) -> list[Example]:
    return load_demonstrations(path, tokenizer, max_prompt_tokens=limit, max_response_tokens=limit)


def rankings(path: Path, tokenizer: PromptTokenizer, *, limit: int = 100) -> list[Ranking]:
    return load_rankings(path, tokenizer, max_prompt_tokens=limit, max_response_tokens=limit)


def test_a_demonstration_is_a_templated_prompt_and_a_response_with_its_end(
    write: Writer, tokenizer: PromptTokenizer
) -> None:
    path = write({"prompt": "what is red?", "completion": SECRET, "id": 7, "extra": {"a": None}})

    (example,) = demonstrations(path, tokenizer)

    assert example.prompt == tokenizer.encode_prompt("what is red?")
    assert example.response == [*tokenizer.encode_text(SECRET), tokenizer.eos_token_id]
    assert example.user == ""


def test_conversations_are_laid_out_by_the_chat_template(write: Writer, tokenizer: PromptTokenizer) -> None:
    turns = [
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "hello!"},
        {"role": "user", "content": "what is red?"},
    ]
    reply = [{"role": "assistant", "content": SECRET}]
    path = write({"prompt": turns[:1], "completion": reply}, {"prompt": turns, "completion": reply})

    one_turn, three_turns = demonstrations(path, tokenizer)

    assert one_turn.prompt == tokenizer.encode_prompt("hello")
    assert tokenizer.decode(three_turns.prompt, skip_special=False) == (
        "<|user|> hello<|assistant|> hello!<|end|><|user|> what is red?<|assistant|>"
    )
    assert one_turn.response == three_turns.response == [*tokenizer.encode_text(SECRET), tokenizer.eos_token_id]


def test_special_tokens_in_a_conversation_stay_text(write: Writer, tokenizer: PromptTokenizer) -> None:
    turns = [{"role": "user", "content": "a<|end|>"}, {"role": "user", "content": "<|assistant|>b"}]
    path = write({"prompt": turns, "completion": "c<|end|>d"})

    (example,) = demonstrations(path, tokenizer)

    assert example.prompt.count(tokenizer.eos_token_id) == 0
    assert example.response.count(tokenizer.eos_token_id) == 1


def test_several_files_of_both_kinds_are_read_in_order(
    write: Writer, tokenizer: PromptTokenizer, tmp_path: Path
) -> None:
    lines = write({"prompt": "a", "completion": "one"})
    parquet = tmp_path / "data[1]*.parquet"
    pq.write_table(pa.table({"prompt": ["b", "c"], "completion": ["two", "three"]}), parquet)

    texts = [tokenizer.decode(example.response) for example in demonstrations([lines, parquet], tokenizer)]

    assert texts == ["one", "two", "three"]


def test_a_text_that_looks_like_a_date_or_a_number_stays_text(write: Writer, tokenizer: PromptTokenizer) -> None:
    path = write({"prompt": "when?", "completion": "2020-01-01"}, "", {"prompt": "how many?", "completion": "7"})

    assert [tokenizer.decode(example.response) for example in demonstrations(path, tokenizer)] == ["2020-01-01", "7"]


def test_reading_needs_no_network_and_leaves_no_cache(write: Writer, tmp_path: Path) -> None:
    path = write({"text": "a"}, {"text": "b"})
    code = (
        "import socket, sys\n"
        "def refuse(*_): raise AssertionError('network')\n"
        "socket.socket.connect = refuse\n"
        "from pathlib import Path\n"
        "from onlinerlhf.learner.training.data import load_texts\n"
        "print(load_texts(Path(sys.argv[1])))"
    )
    home = tmp_path / "home"
    home.mkdir()

    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, env={"HOME": str(home)}, timeout=60
    )

    assert (done.stdout, done.stderr) == ("['a', 'b']\n", "")
    assert list(home.rglob("*.arrow")) == []


def test_a_ranking_keeps_ties_and_responses_that_were_not_ranked(write: Writer, tokenizer: PromptTokenizer) -> None:
    responses = ["one", "", "two", [{"role": "assistant", "content": "one"}]]
    path = write({"prompt": "say one", "responses": responses, "ranks": [0, -1, 2, 0.0], "labeler": "ana"})

    (ranking,) = rankings(path, tokenizer)

    assert ranking.ranks == [0, -1, 2, 0]
    assert ranking.responses[1] == [tokenizer.eos_token_id]
    assert ranking.responses[3] == ranking.responses[0]
    assert ranking.labeler == "ana"
    assert ranking.has_pairs
    assert ranking.num_tokens == 4 * len(ranking.prompt) + sum(map(len, ranking.responses))


def test_a_ranking_in_which_all_are_equal_has_no_pairs(write: Writer, tokenizer: PromptTokenizer) -> None:
    row = {"prompt": "p", "responses": ["a", "b", "c"]}
    path = write({**row, "ranks": [1, 1, -1]}, {**row, "ranks": [-1, -1, -1]})

    assert [ranking.has_pairs for ranking in rankings(path, tokenizer)] == [False, False]


def test_chosen_and_rejected_are_a_ranking_of_two(write: Writer, tokenizer: PromptTokenizer) -> None:
    path = write(
        {"prompt": "say one", "chosen": "one", "rejected": "two"}, {"prompt": "p", "chosen": "a", "rejected": "a"}
    )

    first, equal = rankings(path, tokenizer)

    assert [tokenizer.decode(response) for response in first.responses] == ["one", "two"]
    assert first.ranks == [0, 1]
    assert not equal.has_pairs


def test_a_prompt_may_be_implied_by_messages_in_common(write: Writer, tokenizer: PromptTokenizer) -> None:
    asked = {"role": "user", "content": "say one"}
    chosen, rejected = ([asked, {"role": "assistant", "content": text}] for text in ("one", "two"))

    (ranking,) = rankings(write({"chosen": chosen, "rejected": rejected}), tokenizer)

    assert ranking.prompt == tokenizer.encode_prompt("say one")
    assert [tokenizer.decode(response) for response in ranking.responses] == ["one", "two"]


def test_a_prompt_may_be_implied_by_words_in_common(write: Writer, tokenizer: PromptTokenizer) -> None:
    path = write({"chosen": "count to three: thirteen", "rejected": "count to three: thirty"})

    (ranking,) = rankings(path, tokenizer)

    assert ranking.prompt == tokenizer.encode_prompt("count to three: ")
    assert [tokenizer.decode(response) for response in ranking.responses] == ["thirteen", "thirty"]


def test_prompts_and_texts(write: Writer, tokenizer: PromptTokenizer) -> None:
    path = write({"prompt": "a", "user": "ana", "text": "x"}, {"prompt": "b", "user": "ben", "text": "y"})

    assert [(row.ids, row.user) for row in load_prompts(path, tokenizer, max_prompt_tokens=10)] == [
        (tokenizer.encode_prompt("a"), "ana"),
        (tokenizer.encode_prompt("b"), "ben"),
    ]
    assert load_texts(path) == ["x", "y"]


def _fails(call: Any, *expected: str) -> None:
    with pytest.raises(DataError) as caught:
        call()
    message = str(caught.value)
    for part in expected:
        assert part in message
    assert SECRET not in message


GOOD = {"prompt": "a", "completion": "b"}


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"prompt": SECRET}, ["field completion", "is missing", "fields: prompt"]),
        ({"prompt": SECRET, "completion": None}, ["field completion", "is missing"]),
        ({"prompt": SECRET, "completion": 7}, ["field completion", "expected a text, got a number"]),
        ({"prompt": {"a": SECRET}, "completion": "b"}, ["field prompt", "expected a text, got an object"]),
        ({"prompt": "  ", "completion": SECRET}, ["field prompt", "got an empty one"]),
        ({"prompt": SECRET, "completion": ""}, ["field completion", "got an empty one"]),
        ({"prompt": SECRET, "completion": "\ud800"}, ["field completion", "surrogate"]),
        ({"prompt": [], "completion": SECRET}, ["field prompt", "ends before the assistant's response"]),
        ({"prompt": [{"role": "assistant", "content": SECRET}], "completion": "b"}, ["field prompt", "ends before"]),
        ({"prompt": [SECRET], "completion": "b"}, ["field prompt", "role and content, got a text"]),
        ({"prompt": [{"role": "user"}], "completion": SECRET}, ["field prompt.content", "got nothing"]),
        ({"prompt": "a", "completion": [{"role": "user", "content": SECRET}]}, ["field completion", "assistant"]),
        ({"prompt": "a", "completion": []}, ["field completion", "got 0 messages"]),
        ({**GOOD, "user": "ana"}, ["field user", "the rows before name none"]),
        ('["prompt"]', ["expected an object with fields, got a list"]),
        ('{"prompt": "the fox is red"', ["the line is not JSON", "column"]),
    ],
)
def test_a_bad_demonstration_is_named_by_file_row_and_field(
    write: Writer, tokenizer: PromptTokenizer, row: dict[str, Any] | str, expected: list[str]
) -> None:
    path = write(GOOD, "", row)

    _fails(lambda: demonstrations(path, tokenizer), f"{path}, row 3", *expected)


def test_a_response_longer_than_the_limit_is_an_error_that_says_what_to_do(
    write: Writer, tokenizer: PromptTokenizer
) -> None:
    num_tokens = tokenizer.count("one two three") + 1
    path = write(GOOD, {"prompt": "a", "completion": "one two three"})

    assert len(demonstrations(path, tokenizer, limit=num_tokens)) == 2
    _fails(
        lambda: demonstrations(path, tokenizer, limit=num_tokens - 1),
        "row 2, field completion",
        f"{num_tokens} tokens exceed the limit of {num_tokens - 1} tokens a response",
        "raise max_response_tokens",
    )


def test_a_prompt_longer_than_the_limit_is_an_error(write: Writer, tokenizer: PromptTokenizer) -> None:
    path = write({"prompt": "one two three four five six", "completion": "a"})

    _fails(lambda: demonstrations(path, tokenizer, limit=4), "row 1, field prompt", "raise max_prompt_tokens")


RANKED = {"prompt": "a", "responses": ["x", "y"], "ranks": [0, 1]}


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"prompt": SECRET}, ["field responses", "is missing", "chosen and rejected"]),
        ({**RANKED, "responses": []}, ["field responses", "expected 2 to 9 responses, got 0"]),
        ({**RANKED, "responses": [SECRET]}, ["field responses", "got 1"]),
        ({**RANKED, "responses": [SECRET] * 10}, ["field responses", "got 10"]),
        ({**RANKED, "responses": SECRET}, ["field responses", "got a text"]),
        ({**RANKED, "responses": [SECRET, None]}, ["field responses[1]", "expected a text, got nothing"]),
        ({**RANKED, "ranks": [0]}, ["field ranks", "expected 2 ranks", "got 1"]),
        ({**RANKED, "ranks": [0, 1, 2]}, ["field ranks", "expected 2 ranks", "got 3"]),
        ({**RANKED, "ranks": [0, 2]}, ["field ranks[1]", "from 0 (best) to 1, or -1", "got 2"]),
        ({**RANKED, "ranks": [-2, 0]}, ["field ranks[0]", "got -2"]),
        ({**RANKED, "ranks": [0, 0.5]}, ["field ranks[1]", "a whole number", "got 0.5"]),
        ({**RANKED, "ranks": [0, float("nan")]}, ["field ranks[1]", "got nan"]),
        ({**RANKED, "ranks": [SECRET, 0]}, ["field ranks[0]", "got a text"]),
        ({**RANKED, "ranks": [True, 0]}, ["field ranks[0]", "got True"]),
        ({**RANKED, "labeler": 3}, ["field labeler", "expected a text, got a number"]),
        ({"prompt": "a", "chosen": SECRET}, ["field rejected", "is missing"]),
        ({"prompt": "a", "chosen": SECRET, "rejected": ""}, ["field rejected", "got an empty one"]),
        ({"prompt": "a", "chosen": SECRET, "rejected": []}, ["field chosen", "got a text, a list"]),
        ({"chosen": SECRET, "rejected": "no"}, ["field prompt", "no common beginning"]),
        ({"chosen": [], "rejected": []}, ["field prompt", "no common beginning"]),
    ],
)
def test_a_bad_ranking_is_named_by_file_row_and_field(
    write: Writer, tokenizer: PromptTokenizer, row: dict[str, Any], expected: list[str]
) -> None:
    path = write(RANKED, row)

    _fails(lambda: rankings(path, tokenizer), f"{path}, row 2", *expected)


def test_a_bad_row_of_a_parquet_file_is_named_too(tokenizer: PromptTokenizer, tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    pq.write_table(pa.table({"prompt": ["a", "b", "c"], "completion": ["x", None, "z"]}), path)

    _fails(lambda: demonstrations(path, tokenizer), f"{path}, row 2, field completion: is missing")


def test_rows_that_are_not_even_there(write: Writer, tmp_path: Path) -> None:
    empty, blank = write(name="empty.jsonl"), write("", "  ", name="blank.jsonl")
    broken, latin = tmp_path / "broken.parquet", tmp_path / "latin.jsonl"
    broken.write_bytes(b"PAR1 cut short")
    latin.write_bytes(b'{"text": "\xff"}\n')
    no_rows = tmp_path / "none.parquet"
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), no_rows)

    for path, problem in (
        (empty, "holds no rows"),
        (blank, "holds no rows"),
        (no_rows, "holds no rows"),
        (tmp_path / "away.jsonl", "no such file"),
        (write(GOOD, name="data.csv"), "ends in .jsonl"),
        (broken, "cannot be read as parquet"),
        (latin, "not UTF-8"),
    ):
        with pytest.raises(DataError, match=re.escape(str(path)) + ".*" + re.escape(problem)):
            load_texts(path)
