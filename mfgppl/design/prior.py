"""What a prior believes about behaviour, before any data."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
import xarray as xr
from torch import Tensor

from mfgppl._arguments import Seed, is_a, positive_int, seed_of, strict_keywords
from mfgppl.data.space import state_labels, text_labels
from mfgppl.density.over_draws import action_shares
from mfgppl.design.derivatives import program_along
from mfgppl.equilibrium.fixed_point import Settled, settled
from mfgppl.equilibrium.response import Equilibrium, soft_response
from mfgppl.equilibrium.simulation import simulate
from mfgppl.exceptions import ConvergenceError
from mfgppl.game import MeanFieldGame
from mfgppl.reward.parameters import Program
from mfgppl.reward.program import RewardProgram, bind, double_precision

CERTAIN = 0.99  # probability of an action above which a choice is called near-certain
UNIFORM = 0.99  # entropy, over its largest, above which a choice is called nearly uniform
MOST = 0.5  # share of decisions that makes a verdict
MAX_STEPS = 1000  # of the search for a draw's equilibrium
LOW, HIGH = 0.05, 0.95  # equal-tailed 90%


@dataclass(frozen=True, eq=False, repr=False)
class PriorPredictive:
    """How agents act whose reward is drawn from the prior.

    A decision is a visit of these agents to a state that leaves a choice.

    Attributes
    ----------
    policy : DataArray
        Probability of each action, dims (draw, time, state, action).
    mean_field : DataArray
        Share of the agents in each state, dims (draw, time, state).
    draws : DataFrame
        One row per draw: its parameters; `certain`, the share of decisions with an action of
        probability above 0.99; `uniform`, the share with an entropy above 0.99 of its largest;
        `entropy`, the mean entropy over its largest, log of the number of available actions.
    table : DataFrame
        One row per state and action: the probability of the action, averaged over the visits of a
        draw's agents; its mean and equal-tailed 90% interval over draws. NaN where nobody goes.
    largest : Series
        The largest probability at a decision: its mean, median and equal-tailed 90% interval over
        decisions, all draws alike.
    observed : Dataset or None
        What panels of `n_agents` show, one a draw: `mean_field` (draw, time, state) and
        `share_by_state` (draw, state, action), NaN where none goes.
    n_failed : int
        Draws left out because their equilibrium was not found.
    random_seed : int
        Seed of the draws and panels.
    """

    policy: xr.DataArray
    mean_field: xr.DataArray
    draws: pd.DataFrame
    table: pd.DataFrame
    largest: pd.Series
    observed: xr.Dataset | None
    n_failed: int
    random_seed: int

    @property
    def verdict(self) -> str:
        """What the prior believes, in a sentence."""
        certain, uniform = self.draws["certain"].mean(), self.draws["uniform"].mean()
        sure, even = f"{100 * certain:.0f}% of decisions", f"{100 * uniform:.0f}% of decisions"
        if certain > MOST:
            return (
                f"the prior believes in near-certain choices: {sure} have an action of "
                f"probability above {CERTAIN}; narrow it (default_scales)"
            )
        if uniform > MOST:
            return (
                f"the prior believes in arbitrary choices: {even} are nearly uniform; widen it "
                "(default_scales)"
            )
        return f"the prior leaves choices open: {sure} are near-certain, {even} nearly uniform"

    def __repr__(self) -> str:
        left_out = f" ({self.n_failed} left out: no equilibrium found)" if self.n_failed else ""
        largest = self.largest
        return "\n".join(
            [
                f"{len(self.draws)} draws from the prior{left_out}",
                self.verdict,
                f"largest probability at a decision: mean {largest['mean']:.2f}, 90% of decisions "
                f"(equal-tailed) {largest['5%']:.2f} to {largest['95%']:.2f}",
                f"mean entropy at a decision: {self.draws['entropy'].mean():.2f} of its largest",
            ]
        )


class _Played(NamedTuple):
    """What one draw leads to.

    Attributes
    ----------
    draw, seed : int
        Which draw it is, and its seed.
    values : ndarray, shape (P,)
        Constrained parameters.
    policy : ndarray, shape (T, S, A)
        How its agents act.
    shares : ndarray, shape (T, S)
        Where they are.
    faced : Tensor, shape (T, S), or (T, S, A) in a joint game
        The flow that they face.
    """

    draw: int
    seed: int
    values: np.ndarray
    policy: np.ndarray
    shares: np.ndarray
    faced: Tensor


@strict_keywords
def prior_predictive(
    game: MeanFieldGame,
    reward: RewardProgram,
    *,
    mean_field: Any = None,
    draws: int = 200,
    random_seed: Seed = None,
    n_agents: int | None = None,
) -> PriorPredictive:
    """Draw rewards from their prior, and say how agents act who have them.

    Parameters
    ----------
    game : MeanFieldGame
        The game.
    reward : callable
        A reward program.
    mean_field : array, shape (T, S), or (T, S, A) in a joint game, optional
        The flow that agents face; by default each draw's own equilibrium.
    draws : int
        Draws from the prior.
    random_seed : int or SeedSequence, optional
        Seed of these, and of panels; by default a fresh one, recorded.
    n_agents : int, optional
        Size of a panel to draw for each, as `observed`; the game must have a horizon.

    Returns
    -------
    PriorPredictive
        Policies, flows, and how certain choices are.

    Raises
    ------
    ConvergenceError
        If the equilibrium is found at no draw: give `mean_field`.
    ValueError
        If an argument does not fit, no state leaves a choice, or the reward is not finite.

    References
    ----------
    .. [1] Gabry, Simpson, Vehtari, Betancourt and Gelman (2019), *Visualization in Bayesian
       workflow*, Journal of the Royal Statistical Society A 182.
    """
    is_a("game", game, MeanFieldGame)
    positive_int("draws", draws)
    random_seed = seed_of(random_seed)
    if n_agents is not None and game.stationary:
        raise ValueError("`n_agents` needs a game with a horizon; leave it out, or set a horizon.")
    if n_agents is not None:
        positive_int("n_agents", n_agents)
    check_choice(game)
    flow = None if mean_field is None else game.check_flow("mean_field", mean_field).detach()
    program = program_along(game, reward, flow)
    seeds = np.random.default_rng(random_seed).integers(2**31, size=draws)
    tried = [_play(game, program, flow, k, int(seed)) for k, seed in enumerate(seeds)]
    played = [one for one in tried if one is not None]
    if not played:
        raise ConvergenceError(
            f"the equilibrium was found at none of {draws} draws from the prior; give the flow "
            "that agents face as `mean_field`."
        )
    policy, shares = _label_arrays(game, played)
    parameters = pd.DataFrame(
        [one.values for one in played], policy.indexes["draw"], program.entry_names()
    )
    certainty, largest = _certainty(game, policy.to_numpy(), shares.to_numpy())
    return PriorPredictive(
        policy=policy,
        mean_field=shares,
        draws=parameters.join(certainty.set_index(parameters.index)),
        table=_by_state(policy, shares),
        largest=largest,
        observed=None if n_agents is None else _panel_shares(game, played, policy, n_agents),
        n_failed=draws - len(played),
        random_seed=random_seed,
    )


def check_choice(game: MeanFieldGame) -> None:
    """Raise a `ValueError` if each state of a game has a single action."""
    if not (game.available.sum(-1) > 1).any():
        raise ValueError("each state of `game` has a single action: there is no choice to explain.")


def _play(
    game: MeanFieldGame, program: Program, flow: Tensor | None, draw: int, seed: int
) -> _Played | None:
    """Return how agents act at a draw from the prior; None where no equilibrium is found."""
    free, reward = torch.from_numpy(program.draw(seed)), program.reward
    with double_precision(), torch.no_grad():
        run = program.at(free)
        values = run.values
        world: Settled | Equilibrium
        if flow is None:
            world = settled(game, reward, values, max_steps=MAX_STEPS)
            if not world.converged:
                return None
            faced = world.mean_field
        else:
            bound, faced = bind(reward, values), flow
            world = soft_response(game, bound, flow, temperature=game.temperature)
    shares = world.mean_field.sum(-1) if game.joint else world.mean_field
    flat = run.flat_values.numpy()
    return _Played(draw, seed, flat, world.policy.numpy(), shares.numpy(), faced)


def _label_arrays(game: MeanFieldGame, played: list[_Played]) -> tuple[xr.DataArray, xr.DataArray]:
    """Return policies (draw, time, state, action) and shares (draw, time, state)."""
    coords = {
        "draw": [one.draw for one in played],
        "time": np.arange(game.shape[0]),
        "state": state_labels(game.space),
        "action": text_labels(game.actions),
    }
    policies, shares = (
        np.stack(v) for v in ([p.policy for p in played], [p.shares for p in played])
    )
    policy = xr.DataArray(policies, coords, tuple(coords), name="policy")
    del coords["action"]
    return policy, xr.DataArray(shares, coords, tuple(coords), name="mean_field")


def _certainty(
    game: MeanFieldGame, policies: np.ndarray, shares: np.ndarray
) -> tuple[pd.DataFrame, pd.Series]:
    """Return certainty by draw, and the largest probability over all decisions."""
    n_available = game.available.numpy().sum(-1)
    weights = shares * (n_available > 1)
    total = weights.sum((1, 2), keepdims=True)
    if not total.any():
        raise ValueError(
            "no agent reaches a state of `game` with more than one action: there is no choice to "
            "foretell."
        )
    weights = np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)
    logs = np.log(policies, out=np.zeros_like(policies), where=policies > 0)
    entropy = -(policies * logs).sum(-1) / np.log(np.maximum(n_available, 2))
    largest = policies.max(-1)
    marks = {"certain": largest > CERTAIN, "uniform": entropy > UNIFORM, "entropy": entropy}
    by_draw = pd.DataFrame({k: (weights * v).sum((1, 2)) for k, v in marks.items()})
    by_draw[total.ravel() == 0] = np.nan
    spots, heavy = largest.ravel(), weights.ravel()
    order = spots.argsort()
    upto = heavy[order].cumsum()
    place = np.searchsorted(upto, np.array([LOW, 0.5, HIGH]) * upto[-1])
    found_there = [np.average(spots, weights=heavy), *spots[order][place]]
    return by_draw, pd.Series(found_there, ["mean", "5%", "50%", "95%"], name="largest")


def _by_state(policy: xr.DataArray, shares: xr.DataArray) -> pd.DataFrame:
    """Return choice probabilities by state, averaged over visits, over draws."""
    visits = shares.sum("time")
    averaged = (policy * shares).sum("time") / visits.where(visits > 0)
    averaged = averaged.transpose("draw", "state", "action")
    pairs = pd.MultiIndex.from_product(
        [policy["state"].to_numpy(), policy["action"].to_numpy()], names=["state", "action"]
    )
    frame = pd.DataFrame(averaged.to_numpy().reshape(len(averaged), -1), columns=pairs)
    return pd.DataFrame(
        {"mean": frame.mean(), "5%": frame.quantile(LOW), "95%": frame.quantile(HIGH)}
    )


def _panel_shares(
    game: MeanFieldGame, played: list[_Played], policy: xr.DataArray, n_agents: int
) -> xr.Dataset:
    """Return what a panel of each draw's agents shows."""
    panels = [
        simulate(game, one.policy, one.faced, n_agents=n_agents, random_seed=one.seed)
        for one in played
    ]
    statistics = {
        "mean_field": np.stack([panel.mean_field() for panel in panels]),
        "share_by_state": np.stack(
            [action_shares(panel.counts.actions)["share_by_state"] for panel in panels]
        ),
    }
    dims = {"mean_field": ("draw", "time", "state"), "share_by_state": ("draw", "state", "action")}
    return xr.Dataset({k: (dims[k], v) for k, v in statistics.items()}, policy.coords)
