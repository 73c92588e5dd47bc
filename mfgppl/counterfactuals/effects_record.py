"""Effects as a record: a table, and sentences."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd

CROWD = "the crowd"
CHOICE = {"held": "choice, flow held", "equilibrium": "choice, in equilibrium"}
LARGER = {how: f"{effect}, 10% larger" for how, effect in CHOICE.items()}
FLOW = {"held": "share, one step", "equilibrium": "share, in equilibrium"}
NEXT = "next state"
OF_CROWD = (NEXT, FLOW["held"], FLOW["equilibrium"])
AVERAGE = "a state on average"
CHOICE_OF = "choice of "
TIE = 1e-6  # relative difference of effects that is none


def relative(how: str) -> str:
    """Name the elasticity of a choice."""
    return f"elasticity of {CHOICE[how]}"


def worth(per: str) -> str:
    """Name a ratio of coefficients."""
    return f"in units of {per}"


def choice_of(action: str) -> str:
    """Name the effect of the crowd on a choice."""
    return f"{CHOICE_OF}{action}"


EFFECTS = [
    CHOICE["held"], CHOICE["equilibrium"], LARGER["held"], LARGER["equilibrium"],
    relative("held"), relative("equilibrium"), NEXT, FLOW["held"], FLOW["equilibrium"],
]  # fmt: skip


class _Row(NamedTuple):
    estimate: float
    lower: float
    upper: float


@dataclass(frozen=True, eq=False, repr=False)
class Effects:
    """What coefficients and the crowd do to choices and to flows.

    Attributes
    ----------
    table : DataFrame
        One row per effect. Index: `of`, a parameter or "the crowd"; `effect`; `on`, an action or a
        state. Columns `estimate`, `error` (standard error of a point, standard deviation of draws),
        `lower` and `upper`. Effects on a "choice" are probabilities per unit of the coefficient,
        those "10% larger" probabilities; elasticities are per cent per per cent; effects on a
        "share" are shares per unit; those of the crowd are points per point.
    per : str or None
        The parameter in whose unit coefficients are given.
    ci_prob : float
        Mass of the intervals.
    kind : str
        Their kind, "Wald" or "equal-tailed".
    n_draws, n_failed : int
        Draws used, and those at which nothing could be computed.
    residual : float
        Largest difference of a share between the flow that is held and the one that agents generate
        along it: 0 in equilibrium.
    kinds_unseen : bool
        Whether agents are of unseen kinds, so that effects hold the flow and each agent's shares.
    messages : tuple of str
        Why effects have no interval.
    shares : tuple of str
        Shares of the crowd that the reward asks for by label, as "with law = yes": what the crowd
        does to a choice is given for each.
    """

    table: pd.DataFrame
    per: str | None
    ci_prob: float
    kind: str
    n_draws: int
    n_failed: int
    residual: float
    kinds_unseen: bool
    messages: tuple[str, ...]
    shares: tuple[str, ...] = ()

    @property
    def parameters(self) -> list[str]:
        """The parameters of which effects were taken."""
        return [n for n in dict.fromkeys(self.table.index.get_level_values("of")) if n != CROWD]

    @property
    def sentences(self) -> list[str]:
        """Each parameter in a sentence, then the crowd."""
        said = [self.of_parameter(name) for name in self.parameters] + self.of_crowd_on_choices
        return said + [self.of_crowd] if self.of_crowd else said

    @property
    def of_crowd_on_choices(self) -> list[str]:
        """What ten points more of the crowd do to the choice that they move most, in sentences.

        One for each share that the reward asks for by label, and where it asks for none the one
        state that moves a choice most; none without crowd.
        """
        most: dict[str, str] = {}  # the effect on the choice moved most, by share or state
        size: dict[str, float] = {}
        for (of, effect, on), estimate in zip(
            self.table.index, self.table["estimate"], strict=True
        ):
            # of two actions that are moved alike, the one that gains
            change = abs(estimate) * (1.0 + (estimate > 0) * TIE)
            if of == CROWD and effect.startswith(CHOICE_OF) and change > size.get(on, 0.0):
                most[on], size[on] = effect, change
        asked = [share for share in self.shares if share in most]
        state = "" if asked or not size else max(size, key=lambda on: size[on])
        return [self._on_choice(most[on], on) for on in asked or [state] if on]

    def _on_choice(self, effect: str, on: str) -> str:
        row, who = self._row(CROWD, effect, on), on if on in self.shares else f"in state “{on}”"
        assert row is not None
        return (
            f"Ten points more of the crowd {who}, at all times, "
            f"{'raise' if row.estimate > 0 else 'lower'} the probability of "
            f"“{effect.removeprefix(CHOICE_OF)}” by {abs(10 * row.estimate):.2g} points"
            f"{self._interval(row, 10)}."
        )

    @property
    def of_crowd(self) -> str:
        """What one point more of the crowd in a state does, in a sentence; empty without crowd."""
        now, settled = (self._row(CROWD, effect, AVERAGE) for effect in (NEXT, OF_CROWD[-1]))
        if now is None:
            return ""
        text = (
            "One percentage point more of the crowd in a state, at all times, makes an agent "
            f"{_by(now.estimate, 'points more', 'points less')} likely to be there after its "
            f"next decision{self._interval(now)}"
        )
        if settled is not None:
            change = _by(settled.estimate, "points more", "points fewer")
            text += f"; once all have answered, {change} of the others are there"
            text += self._interval(settled)
        return text + "."

    def choices(self, *, how: str = "held") -> pd.DataFrame:
        """Return the effects on choices of coefficients 10% larger, by parameter and action.

        Along the flow "held", or in "equilibrium".
        """
        rows = self.table[self.table.index.get_level_values("effect") == LARGER[how]]
        return rows.droplevel("effect")

    def rows(self, of: str, effect: str) -> pd.DataFrame:
        """Return one effect of a parameter, or of the crowd, by action or state."""
        index = self.table.index
        kept = (index.get_level_values("of") == of) & (index.get_level_values("effect") == effect)
        return self.table[kept].droplevel(["of", "effect"])

    def of_parameter(self, name: str) -> str:
        """What a coefficient 10% larger does to the choice that it moves most, in a sentence."""
        held = self.rows(name, LARGER["held"])["estimate"].abs().dropna()
        if held.empty:
            return f"The effect of {name} is not known."
        action = str(held.idxmax())
        now, settled = (self._row(name, LARGER[how], action) for how in LARGER)
        assert now is not None
        text = (
            f"If {name} were 10% larger, agents would choose “{action}” "
            f"{_by(100 * now.estimate, 'points more', 'points less')} often"
            f"{self._interval(now, 100)} along the same flow"
        )
        if settled is not None:
            points = _by(100 * settled.estimate, "points more", "points less")
            text += f", and {points} once the crowd has answered"
        return text + "."

    def _row(self, of: str, effect: str, on: str) -> _Row | None:
        """Return one effect, None where it is not there or not known."""
        rows = self.rows(of, effect)
        if on not in rows.index:
            return None
        found = _Row(*map(float, rows.loc[on, ["estimate", "lower", "upper"]]))
        return None if math.isnan(found.estimate) else found

    def _interval(self, row: _Row, times: float = 1.0) -> str:
        if math.isnan(row.lower):
            return ""
        low, high = _signed(times * row.lower), _signed(times * row.upper)
        return f" ({100 * self.ci_prob:g}% interval {low} to {high})"

    def __repr__(self) -> str:
        shown = self.table.to_string(float_format=lambda v: f"{v:.3g}", na_rep="")
        source = f"{self.n_draws} draws" if self.kind == "equal-tailed" else "delta method"
        lines = [f"{source}; {self.kind} {100 * self.ci_prob:g}% intervals", shown]
        return "\n".join([*lines, *self.sentences, *self.messages])


def _by(change: float, more: str, less: str) -> str:
    return f"{abs(change):.2g} {more if change > 0 else less}"


def _signed(value: float) -> str:
    return f"{value:+.2g}".replace("-", "−")
