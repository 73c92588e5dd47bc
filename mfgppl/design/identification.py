"""What no data can identify of a reward: the rank test against potential shaping, before any data.

Along a fixed flow two rewards have the same soft policy if and only if their difference f is a
shaping, `f_t(s, a) = v_t(s) - discount * sum_s' P_t(s'|s, a) v_{t+1}(s')` with `v_T = 0`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from torch import Tensor

from mfgppl._arguments import is_a, strict_keywords
from mfgppl._generated_flow import uniform_policy
from mfgppl.density.curvature import TOUCHES, describe_direction, readable
from mfgppl.density.draws import flat_draws, is_tree
from mfgppl.density.sizes import ROUNDING
from mfgppl.design.derivatives import (
    Slopes,
    advantages,
    program_along,
    slopes_at,
    steps_of,
)
from mfgppl.design.unseen_kinds import (
    densities_along,
    equilibrium_of_kinds,
    reasons,
    scaled_scores,
)
from mfgppl.equilibrium.fixed_point import Settled, settled
from mfgppl.estimation.point_estimate import PointEstimate, point_values
from mfgppl.game import MeanFieldGame
from mfgppl.reward.parameters import Program
from mfgppl.reward.program import RewardProgram

NOTHING = 1e-9  # effect on the policy, relative to the reward's change, that counts as none
NOBODY = 1e-12  # share of the crowd that counts as none
FOR_MEDIAN = 15  # prior draws whose median stands in for `parameters`
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
        draws from the prior; of posterior draws the mean over unconstrained values.
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
    if is_tree(parameters):
        law, drawn = "posterior", _posterior_points(first, parameters)
        theta = drawn.mean(0)
        elsewhere = list(drawn[np.linspace(0, len(drawn) - 1, ELSEWHERE).astype(int)])
    else:
        law, theta = "prior", _point(first, parameters)
        elsewhere = [first.draw(FOR_MEDIAN + k) for k in range(ELSEWHERE)]
    flows = _flows(first, theta, mean_field)
    points = (theta, *elsewhere)
    if first.nodes is None:
        tests, doubts = _tested(first, flows, points)
    else:
        tests, doubts = _tested_kinds(first, flows, points)
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
        reasons=doubts,
    )


def _posterior_points(program: Program, draws: Any) -> np.ndarray:
    """Return some unconstrained posterior draws (N, K), evenly spaced."""
    flat = flat_draws(program, draws, argument="parameters")
    rows = flat.reshape(-1, flat.shape[-1])
    kept = np.linspace(0, len(rows) - 1, min(len(rows), FOR_MEAN)).astype(int)
    return program.free_rows(rows[kept])


@dataclass(frozen=True, eq=False)
class _Test:
    """The rank test at one point.

    Attributes
    ----------
    rows : ndarray, shape (N, K)
        Effect on the policy of each parameter, in units of its effect on the reward.
    size : ndarray, shape (K,)
        Those units.
    jacobian : ndarray, shape (P, K)
        Slope of the constrained in the unconstrained parameters.
    values : ndarray, shape (P,)
        The constrained parameters.
    """

    rows: np.ndarray
    size: np.ndarray
    jacobian: np.ndarray
    values: np.ndarray

    @property
    def flat(self) -> np.ndarray:
        """The flat directions (n_flat, K), unconstrained."""
        return self._scaled_flat / self.size

    @property
    def rank(self) -> int:
        """Number of directions that are not flat."""
        return len(self.size) - len(self._scaled_flat)

    @property
    def known(self) -> np.ndarray:
        """Which constrained parameters (P,) lie outside the flat directions."""
        touched = (self._scaled_flat**2).sum(0) > TOUCHES
        known: np.ndarray = ~(self.jacobian[:, touched] != 0).any(1)
        return known

    def leaves(self, direction: np.ndarray) -> bool:
        """Return whether a constrained direction (P,) leaves the policy as it is."""
        scaled = self.size * (np.linalg.pinv(self.jacobian) @ direction)
        size = max(float(np.linalg.norm(scaled)), 1e-300)
        return bool(np.linalg.norm(self.rows @ scaled) <= 10 * NOTHING * size)

    @property
    def _scaled_flat(self) -> np.ndarray:
        _, sizes, vectors = np.linalg.svd(self.rows)
        known = np.zeros(len(vectors), dtype=bool)
        known[: len(sizes)] = sizes > NOTHING
        return np.asarray(vectors[~known])


Tested = tuple[list[_Test], tuple[str, ...]]  # at each point, and what is doubtful in words


def _tested(first: Program, flows: Sequence[Tensor], points: Sequence[np.ndarray]) -> Tested:
    """Return the rank tests at points, of a program along flows."""
    programs = [program_along(first.game, first.reward, flow) for flow in flows]
    evidence = [_evidence(program) for program in programs]
    return [_test(programs, evidence, point) for point in points], ()


def _tested_kinds(first: Program, flows: Sequence[Tensor], points: Sequence[np.ndarray]) -> Tested:
    """Return the rank tests where kinds are not seen: of the scores of histories."""
    densities = densities_along(first, flows)
    tests = []
    for point in points:
        rows, size, slope, values = scaled_scores(densities, point)
        tests.append(_Test(np.asarray(np.linalg.qr(rows, mode="r")), size, slope, values))
    return tests, reasons(densities, points[0])


def _test(programs: Sequence[Program], evidence: Sequence[Tensor], theta: np.ndarray) -> _Test:
    """Return the rank test at a point over all flows."""
    rows, features, least = [], [], 0.0
    for program, seen in zip(programs, evidence, strict=True):
        slopes = slopes_at(program, theta)
        rows.append(_effects(program, slopes)[:, seen].numpy())
        features.append(slopes.features[:, seen].numpy())
        if not program.answers_reward:  # a table with rounding
            least = max(least, ROUNDING * slopes.largest * np.sqrt(features[-1].shape[1]))
    size = np.linalg.norm(np.concatenate(features, axis=1), axis=1)
    idle = size <= least  # a change of rounding is none
    size[idle] = 1.0
    scaled = (np.where(idle[:, None], 0.0, np.concatenate(rows, axis=1)) / size[:, None]).T
    # the triangle of a QR decomposition has the null space of its rows
    triangle = np.asarray(np.linalg.qr(scaled, mode="r"))
    return _Test(triangle, size, slopes.jacobian, slopes.values)


def _effects(program: Program, slopes: Slopes) -> Tensor:
    """Return what each parameter does to the uniform policy, (K, T, S, A)."""
    game = program.game
    uniform = uniform_policy(game)
    return advantages(slopes.features, uniform, steps_of(program), game)


def _evidence(program: Program) -> Tensor:
    """Return the available actions (T, S, A) of the states that can be reached along its flow."""
    game, mean_field = program.game, program.mean_field
    steps, uniform = steps_of(program), uniform_policy(game)
    shares = mean_field.sum(-1) if game.joint else mean_field
    seen = shares > NOBODY
    if game.stationary:
        seen[0] |= game.initial > NOBODY
        for _ in range(game.n_states):
            seen[0] |= steps.pushed(0, seen[0].double()[:, None] * uniform[0]) > 0
    for t in range(game.shape[0] - 1):
        seen[t + 1] |= steps.pushed(t, seen[t].double()[:, None] * uniform[t]) > 0
    return seen[:, :, None] & game.available


def _flows(program: Program, theta: np.ndarray, given: Any) -> list[Tensor]:
    """Return the flows along which data are seen."""
    if given is None:
        if program.nodes is not None:
            return [equilibrium_of_kinds(program, theta)]
        return [equilibrium_at(program, theta).mean_field]
    game = program.game
    several = list(given) if isinstance(given, (list, tuple)) else [given]
    if not several:
        raise ValueError("`mean_field` must hold at least one flow; got none.")
    if np.ndim(several[0]) == len(game.flow_shape) - 1:
        several = [given]  # one flow, as nested lists
    return [game.check_flow("mean_field", flow).detach() for flow in several]


def _point(program: Program, parameters: Mapping[str, Any] | PointEstimate | None) -> np.ndarray:
    """Return unconstrained parameters: the given ones, else the median of prior draws."""
    if parameters is None and program.nodes is not None:  # medians of like kinds are alike
        return program.draw(FOR_MEDIAN)
    if parameters is None:
        return np.asarray(np.median([program.draw(k) for k in range(FOR_MEDIAN)], axis=0))
    return free_point(program, parameters)


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


def equilibrium_at(program: Program, theta: np.ndarray) -> Settled:
    """Return the equilibrium at unconstrained parameters, else raise `ConvergenceError`."""
    return settled(program.game, program.reward, program.values_at(theta), throw=True)


def effects_by_entry(jacobian: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return the effects of constrained parameters (P,) of those of unconstrained ones (K,)."""
    weights = np.abs(np.linalg.pinv(jacobian / np.where(sizes > 0, sizes, 1.0)))
    effects = weights.max(0, initial=0.0)
    return np.where(effects > 0, effects, 1.0)


def _in_words(game: MeanFieldGame, n_flows: int) -> str:
    times = "stationary" if game.stationary else f"{game.horizon} times"
    flows = "1 flow" if n_flows == 1 else f"{n_flows} flows"
    return f"{flows}: {times}, {game.n_states} states, {game.n_actions} actions"
