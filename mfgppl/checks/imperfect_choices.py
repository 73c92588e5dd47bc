"""A scorecard: how much of its reward each agent leaves on the table, and why."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyro
import torch

from mfgppl._arguments import positive_int, strict_keywords
from mfgppl.control.fixed_flow import best_response
from mfgppl.data.trajectories import Trajectories, with_rows
from mfgppl.density.of_model import density_of
from mfgppl.equilibrium.fixed_point import settled
from mfgppl.likelihood.model import TrajectoryModel
from mfgppl.likelihood.requirements import needs_causal
from mfgppl.posterior.fit_values import TAILS
from mfgppl.posterior.policies import Fit, values_of
from mfgppl.reward.behaviour import agent_of, plan_of
from mfgppl.reward.inputs import RewardInputs
from mfgppl.reward.program import asked, bind, double_precision

CAUSES = ("noise", "lapses", "plan")
READINGS = {
    "entropy": "under behaviour='entropy' the noise is taste, and what it costs is no loss",
    "mistakes": "under behaviour='mistakes' the noise is error, which agents expect of themselves",
    "boltzmann": "under behaviour='boltzmann' the noise is error, which agents do not expect",
}


@dataclass(frozen=True, eq=False, repr=False)
class Imperfection:
    """How much of the reward agents leave on the table.

    Attributes
    ----------
    table : DataFrame
        One row per agent: `decisions`; `loss`, what its choices lost against the best ones, with
        `lower` and `upper` (equal-tailed 90 % over posterior draws); and what the fit expects
        along its states, `expected`, the sum of `noise`, `lapses` and `plan`. Reward units,
        discounted to the agent's first decision, means over draws.
    mean : DataFrame
        The means over agents, a row each of `loss`, `expected`, `noise`, `lapses` and `plan`:
        `mean`, `lower`, `upper`.
    reading : str
        What the noise is under the game's law of behaviour.
    """

    table: pd.DataFrame
    mean: pd.DataFrame
    reading: str

    def __repr__(self) -> str:
        shown = self.mean.to_string(float_format=lambda v: f"{v:.3g}")
        return "\n".join(
            [f"reward left by an agent, mean of {len(self.table)}", shown, self.reading]
        )


@strict_keywords
def imperfection(model: TrajectoryModel, fit: Fit, *, draws: int = 200) -> Imperfection:
    """Return how much of its reward each agent leaves on the table, and why.

    With `V*` and `Q*` the values of the best plan along the flow, shocks of the moment in them, a
    choice loses `V*_t(s) - Q*_t(s, a)`. Of what the fit expects, lapses lose `e sum_a u (V* - Q*)`;
    the rest is noise, `(1 - e) sum_a pi (V* - Q*)`. Where agents look a few decisions ahead, or are
    wrong about the crowd, `(1 - e) (V* - Q*(a^))` of it is their plan's, with `a^` the action that
    they hold best.

    Parameters
    ----------
    model : TrajectoryModel
        The model, with the causal likelihood and a horizon.
    fit : DataTree, PointEstimate or mapping
        Posterior draws, a point estimate, or values by site.
    draws : int
        Draws to use at most, evenly spaced, as many of each chain: 50 of four chains are 48.

    Returns
    -------
    Imperfection
        A table by agent, its means, and how the noise is to be read.

    Raises
    ------
    ValueError
        If the game is stationary, or the likelihood the energy law's.
    ConvergenceError
        If the model is coupled, and no equilibrium is found at some draw.
    DataError
        If the panel has no rows.
    """
    positive_int("draws", draws)
    values, _ = values_of(model, fit, draws)
    needs_causal(model, "imperfection")
    if model.game.stationary:
        raise ValueError("`imperfection` needs a game with a horizon; got a stationary one.")
    panel = with_rows(model.panel, "imperfection")
    by_site = density_of(model).program.by_site
    rows = _Rows.of(panel)
    found = np.array([_losses(_tables(model, by_site(one)), rows) for one in values])
    loss, causes = found[:, 0], found[:, 1:]
    lower, upper = np.quantile(loss, TAILS, axis=0)
    table = pd.DataFrame(
        {
            "decisions": rows.decisions, "loss": loss.mean(0), "lower": lower, "upper": upper,
            "expected": causes.sum(1).mean(0), **dict(zip(CAUSES, causes.mean(0), strict=True)),
        },
        pd.Index([str(a) for a in rows.names], name="agent"),
    )  # fmt: skip
    each = np.stack([loss, causes.sum(1), *causes.swapaxes(0, 1)], 1).mean(2)
    below, above = np.quantile(each, TAILS, axis=0)
    mean = pd.DataFrame(
        {"mean": each.mean(0), "lower": below, "upper": above}, ["loss", "expected", *CAUSES]
    )
    return Imperfection(table, mean, READINGS[model.game.behaviour])


class _Rows(NamedTuple):
    """The decisions of a panel, and whose they are."""

    names: np.ndarray
    agent: np.ndarray
    place: tuple[np.ndarray, np.ndarray, np.ndarray]
    since: np.ndarray
    decisions: np.ndarray

    @classmethod
    def of(cls, panel: Trajectories) -> "_Rows":
        acted = panel.action >= 0
        codes, names = pd.factorize(panel.agents[panel.trajectory[acted]])
        time, n = panel.time[acted], len(names)
        first = np.full(n, np.iinfo(np.int64).max)
        np.minimum.at(first, codes, time)
        place = time, panel.state[acted], panel.action[acted]
        return cls(names, codes, place, time - first[codes], np.bincount(codes, minlength=n))


class _Tables(NamedTuple):
    """Losses in reward units: of each choice (T, S, A), expected by cause (3, T, S); discount."""

    gap: np.ndarray
    causes: np.ndarray
    discount: np.ndarray


def _tables(model: TrajectoryModel, sites: dict[str, np.ndarray]) -> _Tables:
    """Return what choices lose at parameters, along the model's flow."""
    game, flow = model.game, model.mean_field
    if model.coupled:
        flow = settled(game, model.reward, sites, start=flow, throw=True).mean_field
    inputs, program = RewardInputs(game, flow), bind(model.reward, sites)
    with double_precision(), pyro.validation_enabled(False), torch.no_grad():
        declared = asked(program, inputs)
        agent, policy = agent_of(declared), plan_of(declared).log_policy
        available = game.available.expand(game.shape)
        policy = policy.exp().masked_fill(~available, 0.0)
        reward = agent.reward_and_end.masked_fill(~available, -torch.inf)
        steps = game.steps_along(inputs.whole_flow, checked=False)
        values, _ = best_response(reward, steps, discount=agent.discount)
        following = [steps.expected(t, values[t + 1]) for t in range(len(values) - 1)]
        ahead = torch.stack([*following, torch.zeros_like(reward[0])])
        q_values = reward + agent.discount * ahead + (0.0 if agent.shock is None else agent.shock)
        gap = (q_values.amax(-1, keepdim=True) - q_values).masked_fill(~available, 0.0)
        lapse = torch.zeros(()) if agent.lapse is None else agent.lapse[..., 0]
        at_random = lapse * gap.sum(-1) / available.sum(-1)
        held_best = gap.gather(-1, policy.argmax(-1, keepdim=True))[..., 0] * (1 - lapse)
        if game.lookahead is None and game.beliefs == "equilibrium":  # no fault of the plan's
            held_best = torch.zeros_like(held_best)
        noise = (policy * gap).sum(-1) - at_random - held_best
        discount = agent.discount.reshape(-1).expand(reward.shape[1])
    causes = torch.stack([noise, at_random.expand_as(noise), held_best])
    return _Tables(gap.numpy(), causes.numpy(), discount.numpy())


def _losses(tables: _Tables, rows: _Rows) -> np.ndarray:
    """Return the loss of each agent, and what is expected by cause, (4, N)."""
    time, state, _ = rows.place
    weight = tables.discount[state] ** rows.since
    parts = [tables.gap[rows.place], *(cause[time, state] for cause in tables.causes)]
    n = len(rows.names)
    return np.array([np.bincount(rows.agent, weight * part, minlength=n) for part in parts])
