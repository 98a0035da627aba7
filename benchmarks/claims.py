"""A measured claim, and the line that states it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """`name value unit goal`, and whether the goal was reached."""

    name: str
    value: float
    unit: str
    goal: str
    """Like >=0.85 or <0.1; `reported` where the figure has no goal."""
    ok: bool

    def __str__(self) -> str:
        return f"{self.name} {self.value:.4g} {self.unit} {self.goal}" + ("" if self.ok else " MISSED")
