"""Kinds that nobody sees: cost of an evaluation, and effective draws per second beside NumPyro.

Run `python analyses/benchmarks/mixtures.py --out FOLDER` on a quiet machine.
"""

# %% Constants

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as numpyro_dist
import pyro
import pyro.distributions as dist
import torch
from chains import chains_of_numpyro, chains_of_ours, least_effective
from jax import lax
from jax.scipy.special import logsumexp
from tables import markdown
from timing import time_in_turns

import mfgppl as mfg
from mfgppl.density.of_model import density_of
from mfgppl.models import pricing

jax.config.update("jax_enable_x64", True)  # as precise as ours
S, A, T = 4, 3, 12
TRUTH = {"margin": 0.3, "crowding": 2.0, "share": [0.6, 0.4], "menu": [0.4, 2.0]}
SHARED = ["margin", "crowding"]

# %% Data: the reference world of two kinds


def steps() -> np.ndarray:
    """Return a step down, none or up that succeeds with probability 0.8."""
    moves = np.zeros((S, A, S))
    for s in range(S):
        for a, step in enumerate((-1, 0, 1)):
            moves[s, a, min(max(s + step, 0), S - 1)] += 0.8
            moves[s, a, s] += 0.2
    return moves


def market(horizon: int) -> mfg.MeanFieldGame:
    """Return the market over some periods."""
    return mfg.MeanFieldGame(
        states={"price": range(S)}, actions=["down", "none", "up"], horizon=horizon,
        transition=steps(), initial=np.ones(S) / S,
    )  # fmt: skip


def firm(x: mfg.RewardInputs) -> Any:
    """Return the reward of firms whose cost of a step nobody sees."""
    margin = pyro.sample("margin", dist.Normal(0.0, 1.0))
    crowding = pyro.sample("crowding", dist.Normal(0.0, 2.0))
    share = pyro.sample("share", dist.Dirichlet(torch.ones(2)))
    menu = pyro.sample("menu", dist.HalfNormal(2.0).expand([2]).to_event(1))
    with x.agents:
        kind = pyro.sample("kind", dist.Categorical(share))
    return margin * x.price - crowding * x.density - menu[kind] * (x.action != "none")


def simulated(horizon: int, n_agents: int) -> mfg.TrajectoryModel:
    """Return the model of a panel along the flow of both kinds."""
    game = market(horizon)
    typed, reward = mfg.kinds.as_types(game, firm, TRUTH)
    played = mfg.solve_equilibrium(typed, reward, throw=True).value
    flow = played.mean_field.reshape(horizon, 2, S).sum(1)
    panel = mfg.simulate(
        typed, played.policy, played.mean_field, n_agents=n_agents, random_seed=1
    ).drop_type("kind")
    return mfg.TrajectoryModel(game, firm, panel, mean_field=flow)


# %% Cost of an evaluation


def product(n_kinds: int, *, months: bool) -> Callable[[mfg.RewardInputs], Any]:
    """Return a reward of the supermarket's products, with or without shocks of each month."""
    prior = dist.Normal(0.0, 3.0)

    def reward(x: mfg.RewardInputs) -> Any:
        each = prior.expand([n_kinds]).to_event(1)
        cut, lift = pyro.sample("cut", each), pyro.sample("lift", each)
        level = pyro.sample("level", x.margin.each(prior))
        crowd = pyro.sample("crowd", prior)
        kind = torch.zeros((), dtype=torch.int64)
        if n_kinds > 1:
            share = pyro.sample("share", dist.Dirichlet(torch.ones(n_kinds)))
            with x.agents:
                kind = pyro.sample("kind", dist.Categorical(share))
        moves = cut[kind] * (x.action == "lower") + lift[kind] * (x.action == "raise")
        total = moves + level[x.margin.codes] + crowd * x.density
        if not months:
            return total
        shock = mfg.period_effects(x, "cuts", prior) * (x.action == "lower")
        shock = shock + mfg.period_effects(x, "lifts", prior) * (x.action == "raise")
        return mfg.Preferences(total, shock=shock)

    return reward


def costs() -> str:
    """Return microseconds of value and gradient by number of kinds."""
    panel = pricing.panel()
    game, rows = pricing.game(panel), []
    for months in (False, True):
        calls = {}
        for n in (1, 2, 3, 4):
            model = mfg.TrajectoryModel(game, product(n, months=months), panel)
            density = density_of(model)
            evaluate, theta = density.evaluator(), density.program.draw(0)
            calls[str(n)] = lambda e=evaluate, at=theta: e(at)
        found = time_in_turns(calls, rounds=15)
        name = "with shocks of each month" if months else "plain"
        for n, timing in found.items():
            ratio = timing.best / found["1"].best
            rows.append([name, n, f"{timing.best:.0f}", f"{ratio:.1f}"])
    header = ["reward", "kinds", "microseconds", "/ one kind"]
    return markdown("534 products, 25 months: value and gradient", header, rows)


def many_agents(n_agents: int) -> str:
    """Return seconds for a panel of very many agents."""
    model = simulated(20, n_agents)
    began = time.perf_counter()
    density = density_of(model)
    evaluate, theta = density.evaluator(), density.program.draw(0)
    evaluate(theta)
    prepared = time.perf_counter() - began
    seconds = time_in_turns({"all": lambda: evaluate(theta)}, rounds=5)["all"].best / 1e6
    header = ["agents", "decisions of each", "prepared, s", "value and gradient, s"]
    row = [f"{n_agents:,}", "20", f"{prepared:.1f}", f"{seconds:.3f}"]
    return markdown("Very many agents of two kinds", header, [row])


# %% Sampling


def numpyro_model(model: mfg.TrajectoryModel) -> Callable[[], None]:
    """Return the same marginalised model: kinds are an axis of one scan backwards in time."""
    table, flow = jnp.asarray(steps()), jnp.asarray(model.mean_field.numpy())
    panel = model.panel
    state = jnp.asarray(panel.state.reshape(-1, T))
    action = jnp.asarray(panel.action.reshape(-1, T))
    price = jnp.arange(S)[None, :, None]
    move = jnp.array([1.0, 0.0, 1.0])
    when = jnp.arange(T)[None, :]

    def declared() -> None:
        margin = numpyro.sample("margin", numpyro_dist.Normal(0.0, 1.0))
        crowding = numpyro.sample("crowding", numpyro_dist.Normal(0.0, 2.0))
        share = numpyro.sample("share", numpyro_dist.Dirichlet(jnp.ones(2)))
        wide = numpyro_dist.HalfNormal(2.0).expand([2]).to_event(1)
        menu = numpyro.sample("menu", wide)

        def step(values: Any, now: Any) -> tuple[Any, Any]:
            crowd, goes_on = now
            reward = margin * price - crowding * crowd[None, :, None] - menu[:, None, None] * move
            q = reward + goes_on * jnp.einsum("sax,kx->ksa", table, values)
            norm = logsumexp(q, axis=-1)
            return norm, q - norm[..., None]

        ends = (flow, jnp.ones(T).at[-1].set(0.0))
        log_policy = lax.scan(step, jnp.zeros((2, S)), ends, reverse=True)[1]  # (T, K, S, A)
        logs = log_policy[when, :, state, action].sum(1)  # (J, K)
        numpyro.factor("actions", logsumexp(logs + jnp.log(share), axis=1).sum())

    return declared


def sampling(n_agents: int, draws: int) -> str:
    """Return a table of both samplers."""
    model = simulated(T, n_agents)
    names = [*SHARED, "menu"]
    ours = chains_of_ours(model, names, draws)
    theirs = chains_of_numpyro(numpyro_model(model), names, draws)
    for found, _ in (ours, theirs):
        found["menu"].sort(axis=-1)  # kinds in the order of their costs
    speeds = [least_effective(d) / s for d, s in (ours, theirs)]
    rows = []
    for name, (found, seconds), speed in zip(
        ("mfgppl", "NumPyro"), (ours, theirs), speeds, strict=True
    ):
        cost = ", ".join(
            f"{found['menu'][..., k].mean():.3f} ({found['menu'][..., k].std():.3f})"
            for k in (0, 1)
        )
        rows.append([name, f"{seconds:.1f}", f"{speed:.0f}", f"{speed / speeds[1]:.1f}", cost])
    header = ["sampler", "seconds", "least effective draws per second", "/ NumPyro", "costs (sd)"]
    title = f"NUTS of two kinds among {n_agents} agents, 4 chains of {draws} + {draws}"
    return markdown(title, header, rows)


# %% Answer


def main(quick: bool, out: Path) -> str:
    """Measure; return the tables as Markdown."""
    out.mkdir(parents=True, exist_ok=True)
    n_agents, many, draws = (200, 2000, 100) if quick else (1000, 1_000_000, 1000)
    parts = [costs(), many_agents(many), sampling(n_agents, draws)]
    text = "\n\n".join(parts)
    (out / "mixtures.md").write_text(text)
    return text


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few agents and few draws")
    parser.add_argument("--out", type=Path, default=Path("benchmarks"), help="folder of results")
    arguments = parser.parse_args()
    print(main(arguments.quick, arguments.out))
