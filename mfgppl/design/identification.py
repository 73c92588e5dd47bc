"""What no data can identify of a reward, before any data: the record, and how it is found.

Along a fixed flow two rewards have the same soft policy if and only if their difference f is a
shaping, `f_t(s, a) = v_t(s) - discount * sum_s' P_t(s'|s, a) v_{t+1}(s')` with `v_T = 0`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from torch import Tensor

from mfgppl._arguments import is_a, strict_keywords
from mfgppl.density.curvature import describe_direction, readable
from mfgppl.density.draws import flat_draws, is_tree
from mfgppl.design.choices import Choices
from mfgppl.design.derivatives import program_along
from mfgppl.design.rank_test import FOR_MEDIAN, Evidence, effects_by_entry
from mfgppl.design.unseen_kinds import Histories
from mfgppl.estimation.point_estimate import PointEstimate, point_values
from mfgppl.game import MeanFieldGame
from mfgppl.reward.parameters import Program
from mfgppl.reward.program import RewardProgram

FOR_MEAN = 200  # posterior draws whose mean is taken
ELSEWHERE = 4  # draws at which a flat direction is looked at again


@dataclass(frozen=True, eq=False, repr=False)
class Identification:
    """What data of any size can and cannot identify of a reward's parameters.

    Attributes
    ----------
    params : Series
        The parameters at which the reward's derivatives are taken, constrained.
    directions : DataFrame, shape (n_flat, P)
        Combinations that no data can identify, a row each, its largest weight 1; the index is in
        words.
    everywhere : Series of bool, shape (n_flat,)
        Whether a combination is flat at further draws as well, or at `params` alone.
    known : Series of bool, shape (P,)
        Which parameters lie outside all of them.
    ranks : tuple of int
        Directions that data can identify, at `params` and at each further draw.
    n_directions : int
        Number of unconstrained parameters: the rank of an identified reward.
    flows : str
        The flows that were looked at, in words.
    law : str
        What the further draws are from: "prior" or "posterior".
    reasons : tuple of str
        What keeps unseen kinds and random coefficients from being identified.
    """

    params: pd.Series
    directions: pd.DataFrame
    everywhere: pd.Series
    known: pd.Series
    ranks: tuple[int, ...]
    n_directions: int
    flows: str
    law: str
    reasons: tuple[str, ...] = ()

    @property
    def rank(self) -> int:
        """Number of directions that data can identify at `params`."""
        return self.ranks[0]

    @property
    def identified(self) -> bool:
        """Whether data can identify all directions at `params`."""
        return self.rank == self.n_directions

    def __repr__(self) -> str:
        plural = "s" * (self.n_directions > 1)
        lines = [
            f"data can identify {self.rank} of {self.n_directions} direction{plural} of the "
            f"parameters ({self.flows})"
        ]
        for direction, always in self.everywhere.items():
            where = (
                "" if always else f", at these parameters, not at every draw from the {self.law}"
            )
            lines.append(f"no data can identify: {direction}{where}")
        lines += self.reasons
        if self.known.any():
            lines.append(f"known: {', '.join(self.known.index[self.known])}")
        if len(set(self.ranks)) > 1 or not self.everywhere.all():
            low, high = min(self.ranks[1:]), max(self.ranks[1:])
            span = f"{low}" if low == high else f"{low} to {high}"
            n = len(self.ranks) - 1
            lines.append(f"at {n} draws from the {self.law} data can identify {span}")
        return "\n".join(lines)


@strict_keywords
def identify(
    game: MeanFieldGame,
    reward: RewardProgram,
    *,
    parameters: Mapping[str, Any] | PointEstimate | xr.DataTree | None = None,
    mean_field: Any = None,
) -> Identification:
    """Name the combinations of reward parameters that no data along a flow can identify.

    A direction of the parameters is not identified if and only if it changes the reward by a
    shaping. Proof: let f be the change of the reward along such a direction. The log policy changes
    by `(Q' - V') / temperature` with `Q' = f + discount * P V'`, `V' = sum_a pi Q'`, `V'_T = 0`.
    If f shapes with v, then `Q' = V' = v` solves this; if `Q' = V'`, then f shapes with `v = V'`.
    Hence the test applies the linear map from f to `Q' - V'` and looks for its null space, which
    is the same for every policy that takes all actions: the uniform one serves, and for a reward
    that is linear in its parameters the answer depends on the flow alone.

    Where kinds are not seen, the directions are those along which no history of an agent changes
    its probability: those of agents who act at random are drawn, and their scores looked at.

    Only states that can be reached along the flow count as evidence. The parameters of a
    hierarchical prior that reach the reward through others alone are flat here: the prior, not the
    likelihood, ties them to data.

    Parameters
    ----------
    game : MeanFieldGame
        The game.
    reward : callable
        A reward program.
    parameters : mapping of str to value, PointEstimate or DataTree, optional
        Where to take derivatives, and whose equilibrium is the flow; by default the median of
        draws from the prior, or one of them where kinds are not seen; of posterior draws the mean
        over unconstrained values.
    mean_field : array, shape (T, S), or (T, S, A) in a joint game, or list of them, optional
        The flow along which data are seen, or those of several plays; by default the equilibrium
        at `parameters`.

    Returns
    -------
    Identification
        For rewards that are not linear in their parameters, about `parameters`, with the test
        repeated along the same flows at draws from the prior, or at posterior draws if given.

    Raises
    ------
    ConvergenceError
        If the equilibrium at `parameters` is not found: give `mean_field`.
    ValueError
        If parameters or flows do not fit, or the reward has no finite derivative.

    References
    ----------
    .. [1] Ng, Harada and Russell (1999), *Policy invariance under reward transformations*, ICML.
    .. [2] Cao, Cohen and Szpruch (2021), *Identifiability in inverse reinforcement learning*,
       NeurIPS, theorem 1.
    """
    is_a("game", game, MeanFieldGame)
    first = program_along(game, reward)
    evidence = _evidence_of(first)
    if is_tree(parameters):
        law, drawn = "posterior", _posterior_points(first, parameters)
        theta = drawn.mean(0)
        elsewhere = list(drawn[np.linspace(0, len(drawn) - 1, ELSEWHERE).astype(int)])
    else:
        law, theta = "prior", _point(evidence, parameters)
        elsewhere = [first.draw(FOR_MEDIAN + k) for k in range(ELSEWHERE)]
    flows = _flows(evidence, theta, mean_field)
    tests, reasons = evidence.tests(flows, (theta, *elsewhere))
    here = tests[0]
    names = first.entry_names()
    effects = effects_by_entry(here.jacobian, here.size)
    flat = readable(here.jacobian @ here.flat.T, effects)
    described = pd.Index([describe_direction(row, names, effects) for row in flat], dtype=object)
    return Identification(
        params=pd.Series(here.values, names, name="value"),
        directions=pd.DataFrame(flat, described, names),
        everywhere=pd.Series(
            [all(test.leaves(row) for test in tests[1:]) for row in flat], described, dtype=bool
        ),
        known=pd.Series(here.known, names, name="known"),
        ranks=tuple(test.rank for test in tests),
        n_directions=first.n_dim,
        flows=_in_words(first.game, len(flows)),
        law=law,
        reasons=reasons,
    )


def _evidence_of(program: Program) -> Evidence:
    """Return what panels show of a program's parameters: of choices, or of whole histories."""
    kind = Choices if program.nodes is None else Histories
    return kind(program)


def _posterior_points(program: Program, draws: Any) -> np.ndarray:
    """Return some unconstrained posterior draws (N, K), evenly spaced."""
    flat = flat_draws(program, draws, argument="parameters")
    rows = flat.reshape(-1, flat.shape[-1])
    kept = np.linspace(0, len(rows) - 1, min(len(rows), FOR_MEAN)).astype(int)
    return program.free_rows(rows[kept])


def _flows(evidence: Evidence, theta: np.ndarray, given: Any) -> list[Tensor]:
    """Return the flows along which data are seen."""
    if given is None:
        return [evidence.equilibrium(theta)]
    game = evidence.program.game
    several = list(given) if isinstance(given, (list, tuple)) else [given]
    if not several:
        raise ValueError("`mean_field` must hold at least one flow; got none.")
    if np.ndim(several[0]) == len(game.flow_shape) - 1:
        several = [given]  # one flow, as nested lists
    return [game.check_flow("mean_field", flow).detach() for flow in several]


def _point(evidence: Evidence, parameters: Mapping[str, Any] | PointEstimate | None) -> np.ndarray:
    """Return unconstrained parameters: the given ones, else those in the middle of the prior."""
    if parameters is None:
        return evidence.middle()
    return free_point(evidence.program, parameters)


def free_point(program: Program, parameters: Mapping[str, Any] | PointEstimate) -> np.ndarray:
    """Return the unconstrained vector of given parameters, else raise."""
    values = point_values(program, parameters, argument="parameters")
    theta = program.free(values, argument="parameters")
    if not np.isfinite(theta).all():
        names = [s.name for s in program.sites if not np.isfinite(theta[s.start : s.stop]).all()]
        raise ValueError(
            f"`parameters` gives {names[0]!r} a value at the edge of its prior's support; "
            "move it inside."
        )
    return theta


def _in_words(game: MeanFieldGame, n_flows: int) -> str:
    times = "stationary" if game.stationary else f"{game.horizon} times"
    flows = "1 flow" if n_flows == 1 else f"{n_flows} flows"
    return f"{flows}: {times}, {game.n_states} states, {game.n_actions} actions"
