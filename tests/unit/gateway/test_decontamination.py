from pathlib import Path

import pytest

from onlinerlhf.core.errors import ConfigError
from onlinerlhf.gateway.admission import decontamination, templates
from onlinerlhf.gateway.admission.decontamination import EvaluationPrompts
from onlinerlhf.gateway.admission.normalise import comparable

LONG = "A train leaves the station at nine in the morning and another one follows it an hour later; when do they meet?"
SHORT = "What is the capital of France?"
INDEX = EvaluationPrompts.of([LONG, SHORT])


def held(text: str) -> bool:
    return INDEX.hold(comparable(text))


def test_an_evaluation_prompt_is_held_whatever_its_case_and_punctuation() -> None:
    assert held(LONG) and held(SHORT)
    assert held("WHAT is the capital, of  France")
    assert held("Ｗhat is the cap\u200bital of France?")


def test_thirteen_words_in_a_row_of_a_long_one_are_enough_and_twelve_are_not() -> None:
    words = LONG.split()
    assert held("Please solve: " + " ".join(words[3:16]) + " Thanks!")
    assert not held("Please solve: " + " ".join(words[3:15]) + " Thanks!")


def test_a_short_one_inside_a_longer_text_proves_nothing() -> None:
    assert not held("My teacher asked: what is the capital of France? Why would she ask that?")


def test_scripts_without_spaces_count_by_characters() -> None:
    index = EvaluationPrompts.of(["北京是中国的首都吗请你回答我这个问题"])
    assert index.hold(comparable("老师说：北京是中国的首都吗请你回答我。"))
    assert not index.hold(comparable("北京是中国的首都"))


def test_an_empty_index_holds_nothing() -> None:
    assert not EvaluationPrompts().hold("anything")


def test_the_file_is_json_lines_with_a_prompt_each(tmp_path: Path) -> None:
    path = tmp_path / "evaluation.jsonl"
    path.write_text('{"prompt": "One\u2028two?", "id": 3}\n\n{"prompt": "Three?"}\n', encoding="utf-8")
    index = decontamination.load(path)
    assert index.hold("one two?") and index.hold("three?")


@pytest.mark.parametrize(
    "line", ["no json, a secret", '"secret"', '{"text": "secret"}', '{"prompt": 3}', '{"prompt": "?"}']
)
def test_a_line_that_is_none_is_named_by_its_number_and_not_quoted(tmp_path: Path, line: str) -> None:
    path = tmp_path / "evaluation.jsonl"
    path.write_text('{"prompt": "fine"}\n' + line)
    with pytest.raises(ConfigError, match="line 2") as caught:
        decontamination.load(path)
    assert "secret" not in str(caught.value)
    with pytest.raises(ConfigError, match="decontamination_file"):
        decontamination.load(tmp_path / "absent")


def test_templates_are_a_json_string_a_line(tmp_path: Path) -> None:
    path = tmp_path / "templates.jsonl"
    path.write_text('"Answer this:\\n{}"\n\n"Hello {}, bye"\n')
    assert templates.load(path).content("answer this: who?") == "who?"
    for line in ("Hello", "3", '"{}"', '"{} {}"', '""'):
        path.write_text('"Hello {}"\n' + line)
        with pytest.raises(ConfigError, match="line 2"):
            templates.load(path)
    with pytest.raises(ConfigError, match="templates_file"):
        templates.load(tmp_path / "absent")
