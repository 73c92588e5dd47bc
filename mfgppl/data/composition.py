"""Whether those who leave or enter a panel change the shares that it shows of the crowd."""

from typing import NamedTuple

import numpy as np
import scipy.special

from mfgppl.data.panel import Panel

SHIFT = 0.01  # of the crowd: a smaller change of its shares is left unsaid
CHANCE = 0.001  # share of panels called selective in which agents go by chance
MANY = 0.1  # of the trajectories: more who come or go are no closed population
FEWEST = 10  # who go: the law of the statistic is no chi-squared of fewer


class Turnover(NamedTuple):
    """Who left a panel before its last decision time, or entered after its first.

    Attributes
    ----------
    gone : ndarray, shape (S,)
        How many, by the state in which they were seen last, or first.
    expected : ndarray, shape (S,)
        How many there would be if it were by chance: by the shares of all who were seen then.
    shift : ndarray, shape (S,)
        What they change of the shares of the crowd, summed over times.
    """

    gone: np.ndarray
    expected: np.ndarray
    shift: np.ndarray

    @property
    def distance(self) -> float:
        """Total variation of the shift."""
        return float(np.abs(self.shift).sum() / 2)

    @property
    def chance(self) -> float:
        """Probability of a selection as strong as this one, if it is by chance.

        By the statistic sum (O - E)^2 / E of the log-rank test between the states, which rejects
        slightly less often than its level.
        """
        kept = self.expected > 0
        excess = self.gone[kept] - self.expected[kept]
        statistic = float((excess**2 / self.expected[kept]).sum())
        return float(scipy.special.gammaincc(max(kept.sum() - 1, 1) / 2, statistic / 2))

    @property
    def is_selective(self) -> bool:
        """Whether it changes the shares of the crowd by more than chance, and enough to matter."""
        enough = self.gone.sum() >= FEWEST and self.distance > SHIFT
        return enough and self.chance < CHANCE


def leavers(panel: Panel) -> Turnover:
    """Return who leaves before the last decision time, among all who were seen with them.

    Those carried forward in an absorbing state stay.
    """
    last = panel.horizon - 1
    return _turnover(panel.early_ends[:-1], panel.visits[:last], sign=1.0)


def entrants(panel: Panel) -> Turnover:
    """Return who enters after the first time, among all who were seen with them."""
    return _turnover(panel.counts.starts[1:], panel.visits[1 : panel.horizon], sign=-1.0)


def _turnover(gone: np.ndarray, seen: np.ndarray, sign: float) -> Turnover:
    """Compare some of those seen, (times, S) both, with the rest."""
    total, rest = seen.sum(1, keepdims=True), seen - gone
    remaining = rest.sum(1, keepdims=True)
    both = ((total > 0) & (remaining > 0)).ravel()  # else nobody is left to compare with
    shares = seen[both] / total[both]
    expected = gone[both].sum(1, keepdims=True) * shares
    shift = rest[both] / remaining[both] - shares
    return Turnover(gone[both].sum(0), expected.sum(0), sign * shift.sum(0))


def composition_changes(panel: Panel) -> tuple[str, ...]:
    """Say, in a sentence each, how those who leave and enter change the crowd that is observed.

    Parameters
    ----------
    panel : Trajectories or CountedPanel
        The panel, before its times are pooled.

    Returns
    -------
    tuple of str
        None where agents come and go by chance, or change the shares by less than a hundredth.
    """
    sides = {
        "end before the last decision time": leavers(panel),
        "begin after the first time": entrants(panel),
    }
    return tuple(
        _sentence(panel, what, turnover)
        for what, turnover in sides.items()
        if turnover.is_selective
    )


def _sentence(panel: Panel, what: str, turnover: Turnover) -> str:
    most = int(np.argmax(turnover.gone - turnover.expected))
    n, m = turnover.gone[most], turnover.expected[most]
    return (
        f"the crowd observed changes with who is in the panel: {turnover.gone.sum():.0f} of "
        f"{panel.n_trajectories} trajectories {what}, {n:.0f} of them in state "
        f"{panel.space.labels[most]!r} where {m:.0f} would by chance, which moves the observed "
        f"mean field by {turnover.distance:.2f} in all (total variation); keep the rows of those "
        "who are still in the crowd, or give `mean_field`."
    )


def turnover_message(panel: Panel) -> str | None:
    """Say how many enter late or end early where many do, which a closed population does not.

    Parameters
    ----------
    panel : Trajectories or CountedPanel
        The panel, before its times are pooled.

    Returns
    -------
    str or None
        None where at most a tenth of the trajectories begin after the first time, and at most a
        tenth end before the last decision time without being carried forward.
    """
    n, late, early = panel.n_trajectories, panel.n_late, panel.n_early
    if panel.horizon == 1 or max(late, early) <= MANY * n:
        return None
    return (
        f"the flow is solved for as that of a closed population, and {late} of {n} trajectories "
        f"begin after the first time, {early} end before the last decision time: their starts and "
        "ends are no part of that flow. Name the states that nobody leaves in "
        "`from_frame(absorbing=)`, or condition "
        'on the observed flow with `mean_field="empirical"`.'
    )
