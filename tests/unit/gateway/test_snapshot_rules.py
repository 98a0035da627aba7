"""What goes into a snapshot, and why the rest does not."""

from collections.abc import Mapping, Sequence

import pytest

from onlinerlhf.core.samples import ConsentProof, Prompt, UseCase
from onlinerlhf.gateway.rights.blocking import is_blocked
from onlinerlhf.gateway.snapshot.comparisons import comparisons
from onlinerlhf.gateway.snapshot.material import Material, StoredAnswer, StoredJudgement, StoredPrompt
from onlinerlhf.gateway.snapshot.rules import SnapshotRules, choose, lowest_hashes

ADA, GRACE = "a" * 32, "b" * 32
WORDS = ("lemon", "heron", "granite", "violin", "harbour", "comet", "saffron", "glacier", "walnut", "lantern")


def prompt(number: int, *, owner: str = ADA, text: str = "", shown: float = 100.0, rank: float = 0.0) -> StoredPrompt:
    core = Prompt(
        sample_id=f"p{number}",
        prompt_id=f"p{number}",
        owner=owner,
        tenant=owner,
        consent=ConsentProof(key_class="playground", notice_version="1", shown_at_seconds=shown),
        text=text or " ".join([WORDS[number]] * 5),
        token_ids=(1, 2),
        epoch=0,
        admitted_at_seconds=100.0 + number,
        use_case=UseCase.CHAT,
        use_case_source="client",
    )
    return StoredPrompt(prompt=core, consent_second=shown, cap_rank=rank)


def answer(sample_id: str, prompt_id: str, *, owner: str = ADA, response: str = "", created: int = 200) -> StoredAnswer:
    return StoredAnswer(
        sample_id=sample_id,
        prompt_id=prompt_id,
        owner=owner,
        turns=(("user", "a question"),),
        response=response or f"answer {sample_id}",
        pii_kinds=(),
        version=3,
        created_at_seconds=created,
    )


def judgement(
    feedback_id: str,
    samples: Sequence[str],
    *,
    kind: str = "ranking",
    text: str = "",
    owner: str = ADA,
    key_class: str = "playground",
) -> StoredJudgement:
    return StoredJudgement(
        feedback_id=feedback_id,
        kind=kind,
        value=None,
        sample_ids=tuple(samples),
        versions=(3,) * len(samples),
        text=text,
        owner=owner,
        key_class=key_class,
        created_at_seconds=300,
    )


def material(
    prompts: Sequence[StoredPrompt] = (),
    answers: Sequence[StoredAnswer] = (),
    judgements: Sequence[StoredJudgement] = (),
    *,
    blocked: Mapping[str, str] | None = None,
    held_out: Mapping[str, str] | None = None,
) -> Material:
    return Material(
        prompts=prompts,
        answers=answers,
        judgements=judgements,
        held_out=held_out or {},
        split_lineage="",
        blocked=blocked or {},
        unreadable={},
    )


@pytest.mark.parametrize(
    ("word", "blocked"),
    [(None, False), ("erased", True), ("withdrawn:99", False), ("withdrawn:100", True), ("what?", True)],
)
def test_consent_of_second_100_is_blocked_by(word: str | None, blocked: bool) -> None:
    assert is_blocked(word, consent_second=100.7) is blocked


def test_each_owner_keeps_the_prompts_with_the_lowest_hashes() -> None:
    prompts = [prompt(n, rank=rank) for n, rank in enumerate((0.5, 0.1, 0.9, 0.2))]
    prompts.append(prompt(4, owner=GRACE, rank=0.99))
    assert lowest_hashes(prompts, 2) == lowest_hashes(prompts[::-1], 2) == {"p1", "p3", "p4"}


def test_every_prompt_left_out_has_one_reason() -> None:
    prompts = [
        prompt(0, owner=GRACE),
        prompt(1, rank=0.2),
        prompt(2, text=" ".join(["lemon"] * 5)),
        prompt(3, rank=0.1),
        prompt(4, text=" ".join(["HERON"] * 5), rank=0.0),
        prompt(5, owner="c" * 32, shown=50.0),
        prompt(6, owner="c" * 32, shown=70.0),
    ]
    blocked = {GRACE: "erased", "c" * 32: "withdrawn:60"}
    chosen = choose(material(prompts, blocked=blocked), SnapshotRules(prompts_per_user=2))
    assert [each.prompt_id for each in chosen.prompts] == ["p2", "p3", "p6"]
    assert chosen.dropped["prompts"] == {"erased": 1, "near_duplicate": 1, "user_cap": 1, "withdrawn": 1}


def test_splits_are_those_of_admission() -> None:
    chosen = choose(material([prompt(0), prompt(1)], held_out={"p1": "test"}), SnapshotRules())
    assert chosen.split == {"p0": "train", "p1": "test"}


def test_answers_go_with_their_prompts_and_judgements_with_their_answers() -> None:
    chosen = choose(
        material(
            [prompt(0)],
            [answer("s0", "p0"), answer("s1", "p0"), answer("s2", "p9"), answer("s3", "p0", owner=GRACE)],
            [
                judgement("f0", ["s0", "s1"]),
                judgement("f1", ["s0", "s2"]),
                judgement("f2", ["s0"], key_class="production", kind="thumb"),
                judgement("f3", ["s3"], owner=GRACE, kind="thumb"),
            ],
            blocked={GRACE: "erased"},
        ),
        SnapshotRules(),
    )
    assert [each.sample_id for each in chosen.answers] == ["s0", "s1"]
    assert [each.feedback_id for each in chosen.judgements] == ["f0"]
    assert chosen.dropped["answers"] == {"erased": 1, "no_prompt": 1}
    assert chosen.dropped["feedback"] == {"erased": 1, "no_answer": 1, "production_key": 1}


def test_a_ranking_is_a_comparison_best_first() -> None:
    answers = [answer("s0", "p0"), answer("s1", "p0"), answer("s2", "p0", response="answer s1")]
    made, dropped = comparisons([judgement("f", ["s1", "s0", "s2"])], answers)
    assert made[0].responses == ("answer s1", "answer s0", "answer s1")
    assert made[0].ranks == (0, 1, 0)
    assert made[0].labeler == ADA
    assert dropped == {}


def test_a_correction_is_better_than_the_answer() -> None:
    made, _ = comparisons([judgement("f", ["s0"], kind="correction", text="so")], [answer("s0", "p0")])
    assert (made[0].responses, made[0].ranks) == (("so", "answer s0"), (0, 1))


def test_judgements_that_compare_nothing_are_counted_or_passed_over() -> None:
    answers = [
        answer("s0", "p0", response="same"),
        answer("s1", "p0", response="same"),
        answer("s2", "p0", response=" \n"),
    ]
    made, dropped = comparisons(
        [
            judgement("f0", ["s0"], kind="thumb"),
            judgement("f1", ["s0", "s1"]),
            judgement("f2", ["s0", "s2"]),
            judgement("f3", ["s0"], kind="correction"),
        ],
        answers,
    )
    assert made == []
    assert dropped == {"no_text": 1, "blank": 1, "same_response": 1}
