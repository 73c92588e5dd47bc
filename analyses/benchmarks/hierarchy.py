"""A hierarchical prior over many types: effective draws per second, beside NumPyro.

Run `python analyses/benchmarks/hierarchy.py --out FOLDER` on a quiet machine.
"""

# %% Constants

import argparse
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
from chains import chains_of_numpyro, chains_of_ours, least_effective
from jax import lax
from jax.scipy.special import logsumexp
from tables import markdown

import mfgppl as mfg

jax.config.update("jax_enable_x64", True)  # as precise as ours
N_TYPES, S, A, T, N_AGENTS = 50, 10, 3, 20, 5000
SITES = ["pay", "mean", "spread", "lean"]

# %% Data: agents of fifty types whose cost of a move is drawn from one law


def game(n_types: int) -> mfg.MeanFieldGame:
    """Return a ladder whose steps succeed by chance, for types that start alike."""
    moves = np.zeros((S, A, S))
    for s in range(S):
        for a, step in enumerate((-1, 0, 1)):
            moves[s, a, np.clip(s + step, 0, S - 1)] += 0.8
            moves[s, a, s] += 0.2
    return mfg.MeanFieldGame(
        states={"level": range(S)},
        actions=["down", "stay", "up"],
        types={"kind": range(n_types)},
        horizon=T,
        transition=moves,
        initial=np.full(n_types * S, 1 / (n_types * S)),
    )


def reward(x: mfg.RewardInputs) -> Any:
    """Return the worth of a level, less a cost of moves that differs by type."""
    pay = pyro.sample("pay", dist.Normal(0.0, 1.0))
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    spread = pyro.sample("spread", dist.HalfNormal(1.0))
    lean = pyro.sample("lean", x.kind.each(dist.Normal(0.0, 1.0)))
    cost = mean + spread * lean[x.kind.codes]
    return pay * x.level / S - cost * (x.action != "stay")


def numpyro_model(moves: np.ndarray, counts: np.ndarray) -> Callable[[], None]:
    """Return the same model; types are an axis of one scan backwards in time."""
    table, n = jnp.asarray(moves), jnp.asarray(counts)  # counts (T, C, S, A)
    level = jnp.arange(S)[None, :, None] / S
    move = jnp.array([1.0, 0.0, 1.0])

    def declared() -> None:
        normal = numpyro_dist.Normal(0.0, 1.0)
        pay, mean = numpyro.sample("pay", normal), numpyro.sample("mean", normal)
        spread = numpyro.sample("spread", numpyro_dist.HalfNormal(1.0))
        lean = numpyro.sample("lean", normal.expand([n.shape[1]]).to_event(1))
        table_of_reward = pay * level - (mean + spread * lean)[:, None, None] * move

        def step(values: Any, now: Any) -> tuple[Any, Any]:
            q = table_of_reward + now * jnp.einsum("sax,cx->csa", table, values)
            norm = logsumexp(q, axis=-1)
            return norm, (q, norm)

        goes_on = jnp.ones(T).at[-1].set(0.0)
        start = jnp.zeros(n.shape[1:3])
        q, norm = lax.scan(step, start, goes_on, reverse=True)[1]
        numpyro.factor("actions", (n * q).sum() - (n.sum(-1) * norm).sum())

    return declared


# %% Answer


def main(quick: bool, out: Path) -> str:
    """Sample with both; return the table as Markdown."""
    out.mkdir(parents=True, exist_ok=True)
    n_types, draws = (5, 100) if quick else (N_TYPES, 1000)
    world = game(n_types)
    rng = np.random.default_rng(1)
    truth = {"pay": 1.0, "mean": 0.8, "spread": 0.3, "lean": rng.standard_normal(n_types)}
    played = mfg.solve_equilibrium(world, reward, parameters=truth, throw=True).value
    panel = mfg.simulate(
        world, played.policy, played.mean_field, n_agents=N_AGENTS * n_types // N_TYPES,
        random_seed=1,
    )  # fmt: skip
    model = mfg.TrajectoryModel(world, reward, panel, mean_field=played.mean_field)
    counts = panel.counts.actions.reshape(T, n_types, S, A)
    moves = world.transition[0].numpy() if n_types > 1 else world.transition.numpy()
    ours, our_time = chains_of_ours(model, SITES, draws)
    theirs, their_time = chains_of_numpyro(numpyro_model(moves, counts), SITES, draws)
    rows = []
    speeds = [least_effective(d) / s for d, s in ((ours, our_time), (theirs, their_time))]
    for name, found, seconds, speed in zip(
        ("mfgppl", "NumPyro"), (ours, theirs), (our_time, their_time), speeds, strict=True
    ):
        mean = f"{found['mean'].mean():.3f} ({found['mean'].std():.3f})"
        rows.append([name, f"{seconds:.1f}", f"{speed:.1f}", f"{speed / speeds[1]:.1f}", mean])
    header = ["sampler", "seconds", "least effective draws per second", "/ NumPyro", "mean (sd)"]
    title = f"NUTS of {n_types} types, 4 chains of {draws} + {draws}"
    text = markdown(title, header, rows)
    (out / "hierarchy.md").write_text(text)
    return text


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="five types and few draws")
    parser.add_argument("--out", type=Path, default=Path("benchmarks"), help="folder of results")
    arguments = parser.parse_args()
    print(main(arguments.quick, arguments.out))
