"""The people at the gates: when they come, and what they answer."""

import random
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

Form = Mapping[str, Any]


@dataclass(frozen=True)
class Answer:
    """One form that somebody sends."""

    form: Form
    right: bool = True
    """Whether every field has what it needs."""


@dataclass
class Appointment:
    """A person's plan for an open gate, unless a newer run takes it over."""

    run: UUID
    repo_id: str
    night: int
    """The night in which they come."""
    how: str
    """`answers`, `cancels`, or `never`: then the gate stays open until its time is over, or a newer run comes."""
    seed: int

    def answers(self, fields: Collection[str]) -> list[Answer]:
        """Return the forms in the order in which they are sent: perhaps a wrong one, and then the one that decides.

        Args:
            fields: the fields of the gate's form.
        """
        draw = random.Random(self.seed)
        form: dict[str, Any] = {"confirm_repo": self.repo_id, "note": "a person of the year"}
        if "decision" in fields:
            form["decision"] = draw.choices(["delete", "keep"], [3, 1])[0]
        if "remove_stale" in fields:
            form["remove_stale"] = draw.random() < 0.5
        if "removals" in fields:
            form["removals"] = draw.choices(["remove", "keep"], [3, 2])[0]
        before = [Answer(form | {"confirm_repo": draw.choice(["lab/other", "", "year"])}, right=False)]
        return [*(before if draw.random() < 0.2 else []), Answer(form)]


def appointment(draw: random.Random, run: UUID, repo_id: str, night: int) -> Appointment:
    """Draw whether and when somebody comes to a gate that has just opened.

    Args:
        draw: the source of what is random in it.
        run: the run that waits.
        repo_id: the name that has to be typed.
        night: the present night.
    """
    how = draw.choices(["answers", "cancels", "never"], [14, 1, 3])[0]
    late = draw.choices([0, 1, 2, 4, 9], [8, 4, 3, 2, 1])[0]
    return Appointment(run, repo_id, night + late, how, draw.randrange(1 << 32))
