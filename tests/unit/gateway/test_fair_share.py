from onlinerlhf.gateway.admission.fair_share import Tenant, Turn, turns


def plan(*tenants: tuple[str, float, str], page: int = 10, ceiling: float = float("inf"), num: int = 100) -> str:
    """Each tenant as (name, mass, one-letter sample ids); the order as letters, `-name` where a list is empty."""
    planned = turns(
        [Tenant(name=name, mass=mass) for name, mass, _ in tenants],
        [list(ids) for _, _, ids in tenants],
        page=page,
        ceiling=ceiling,
        num_samples=num,
    )
    return " ".join(turn.sample_id or f"-{turn.tenant}" for turn in planned)


def test_equals_take_turns() -> None:
    assert plan(("x", 0, "abc"), ("y", 0, "ABC")) == "a A b B c C -x -y"


def test_who_has_had_less_catches_up_first() -> None:
    assert plan(("x", 2, "ab"), ("y", 0, "ABCD")) == "A B a C b D -x -y"


def test_an_empty_list_is_noted_when_its_turn_comes_and_not_before() -> None:
    assert plan(("x", 1, ""), ("y", 0, "AB"), num=1) == "A"
    assert plan(("x", 1, ""), ("y", 0, "AB"), num=2) == "A -x B"


def test_beyond_what_is_known_of_a_list_nothing_is_planned() -> None:
    assert plan(("x", 0, "ab"), ("y", 5, "A"), page=2) == "a b"


def test_tenants_not_looked_at_are_not_passed_over() -> None:
    assert plan(("x", 0, "abcde"), ceiling=2) == "a b c"


def test_no_more_are_planned_than_asked_for() -> None:
    assert plan(("x", 0, "abcde"), num=2) == "a b"


def test_a_turn_names_its_tenant() -> None:
    assert turns([Tenant(name="x", mass=0)], [["a"]], page=9, ceiling=1.0, num_samples=1) == [Turn("x", "a")]
