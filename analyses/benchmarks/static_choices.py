"""A static panel of choices, beside packages of choice models.

Run by hand, `python analyses/benchmarks/static_choices.py`, with `pip install biogeme lcl-choice
xlogit 'tomlkit==0.13.3'` in an environment of its own: these packages bring many others. A latent
class logit of two kinds and a mixed logit with one normal coefficient; the seconds of a fit stand
beside its log likelihood. What is compiled is warm but where a row says otherwise.
"""

# %% Constants

import argparse
import logging
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import torch
from tables import markdown

import mfgppl as mfg

TIMES, MENUS, OPTIONS = 10, 50, 3

# %% Data: agents who choose among three options of a menu ten times


class Choices:
    """A simulated table; menus come at random whatever was chosen."""

    def __init__(self, n_agents: int) -> None:
        rng = np.random.default_rng(7)
        self.n_agents = n_agents
        self.price = rng.uniform(0.5, 3.0, (MENUS, OPTIONS))
        self.quality = rng.uniform(0.0, 3.0, (MENUS, OPTIONS))
        kind = (rng.random(n_agents) > 0.55).astype(int)
        dear, good = np.array([-1.8, -0.3])[kind], np.array([0.4, 1.6])[kind]
        self.menu = rng.integers(MENUS, size=(n_agents, TIMES))
        worth = dear[:, None, None] * self.price[self.menu]
        worth += good[:, None, None] * self.quality[self.menu]
        self.chosen = (worth + rng.gumbel(size=worth.shape)).argmax(-1)

    @property
    def long(self) -> pd.DataFrame:
        """One row per agent, time and option."""
        cases = self.n_agents * TIMES
        options = np.arange(OPTIONS)
        return pd.DataFrame(
            {"agent": np.repeat(np.arange(self.n_agents), TIMES * OPTIONS),
             "case": np.repeat(np.arange(cases), OPTIONS), "alt": np.tile(options, cases),
             "price": self.price[self.menu].ravel(), "quality": self.quality[self.menu].ravel(),
             "choice": (options == self.chosen[..., None]).ravel()}
        )  # fmt: skip

    def model(self, program: Callable[[mfg.RewardInputs], Any]) -> mfg.TrajectoryModel:
        """Return our model of the table."""
        table = pd.DataFrame(
            {"agent": np.repeat(np.arange(self.n_agents), TIMES),
             "time": np.tile(np.arange(TIMES), self.n_agents), "menu": self.menu.ravel(),
             "action": self.chosen.ravel()}
        )  # fmt: skip
        axes = ("menu", "action")
        game = mfg.MeanFieldGame(
            states={"menu": range(MENUS)}, actions=range(OPTIONS), horizon=TIMES,
            transition=np.full((MENUS, OPTIONS, MENUS), 1 / MENUS),
            initial=np.full(MENUS, 1 / MENUS),
            features={"price": (axes, self.price), "quality": (axes, self.quality)},
        )  # fmt: skip
        panel = mfg.Trajectories.from_frame(
            table, state="menu", state_labels={"menu": range(MENUS)}, action_labels=range(OPTIONS)
        )
        flow = np.full((TIMES, MENUS), 1 / MENUS)
        return mfg.TrajectoryModel(game, program, panel, mean_field=flow)


def latent_class(x: mfg.RewardInputs) -> Any:
    """Return the worth of an option to two kinds."""
    each = dist.Normal(0.0, 3.0).expand([2]).to_event(1)
    share = pyro.sample("share", dist.Dirichlet(torch.ones(2)))
    price, quality = pyro.sample("price", each), pyro.sample("quality", each)
    with x.agents:
        kind = pyro.sample("kind", dist.Categorical(share))
    return price[kind] * x.price + quality[kind] * x.quality


def mixed(x: mfg.RewardInputs) -> Any:
    """Return the worth of an option whose quality is worth as much as each agent has it."""
    price = pyro.sample("price", dist.Normal(0.0, 3.0))
    mean = pyro.sample("mean", dist.Normal(0.0, 3.0))
    spread = pyro.sample("spread", dist.HalfNormal(2.0))
    with x.agents(nodes=30):
        quality = pyro.sample("quality", dist.Normal(mean, spread))
    return price * x.price + quality * x.quality


# %% Fits


def by_us(choices: Choices, program: Callable[[mfg.RewardInputs], Any]) -> tuple[float, float]:
    """Return log likelihood and seconds, of which the model's compilation is a part."""
    began = time.perf_counter()
    fit = mfg.mle(choices.model(program), svi_steps=0, progressbar=False)
    return fit.llf, time.perf_counter() - began


def by_lcl(choices: Choices) -> tuple[float, float]:
    """Return the same of lcl-choice's EM."""
    import lcl
    import polars as pl

    table = pl.from_pandas(choices.long)
    ids = lcl.ChoiceIds(alt="alt", case="case", panel="agent", choice="choice")
    spec = lcl.LCLSpec(ids=ids, utility_formula="choice ~ price + quality", classes=2)
    options = lcl.Options(
        fit=lcl.FitOptions(seed=7, starts=1, max_em_iter=500, num_devices=1),
        inference=lcl.InferenceOptions(covariance="clustered"),
    )
    began = time.perf_counter()
    found = lcl.fit(table, spec, options=options)
    seconds = time.perf_counter() - began
    return float(found.loglik(table)), seconds


def by_biogeme(choices: Choices) -> tuple[float, float]:
    """Return the same of biogeme."""
    import biogeme.biogeme as bio
    import biogeme.database as db
    from biogeme import models
    from biogeme.expressions import Beta, PanelLikelihoodTrajectory, Variable, exp, log

    logging.disable(logging.CRITICAL)
    columns = {"agent": np.repeat(np.arange(choices.n_agents), TIMES),
               "chosen": choices.chosen.ravel()}  # fmt: skip
    for option in range(OPTIONS):
        columns[f"price{option}"] = choices.price[choices.menu][..., option].ravel()
        columns[f"quality{option}"] = choices.quality[choices.menu][..., option].ravel()
    base = db.Database("choices", pd.DataFrame(columns).astype(float))
    base.panel("agent")
    there = dict.fromkeys(range(OPTIONS), 1)
    likelihoods = []
    for kind, (price, quality) in enumerate(((-1.0, 0.5), (-0.5, 1.0))):
        dear = Beta(f"price of {kind}", price, None, None, 0)
        good = Beta(f"quality of {kind}", quality, None, None, 0)
        worth = {k: dear * Variable(f"price{k}") + good * Variable(f"quality{k}") for k in there}
        logit = models.logit(worth, there, Variable("chosen"))
        likelihoods.append(PanelLikelihoodTrajectory(logit))
    share = 1 / (1 + exp(Beta("share", 0, None, None, 0)))
    both = log(share * likelihoods[0] + (1 - share) * likelihoods[1])
    began = time.perf_counter()
    model = bio.BIOGEME(base, both, generate_html=False, generate_yaml=False, save_iterations=False)
    model.model_name = "choices"
    found = model.estimate()
    return float(found.final_log_likelihood), time.perf_counter() - began


def by_xlogit(choices: Choices, draws: int = 500) -> tuple[float, float]:
    """Return the same of xlogit's mixed logit."""
    from xlogit import MixedLogit

    long, model = choices.long, MixedLogit()
    began = time.perf_counter()
    model.fit(
        X=long[["price", "quality"]], y=long["choice"].astype(int), varnames=["price", "quality"],
        alts=long["alt"], ids=long["case"], panels=long["agent"], randvars={"quality": "n"},
        n_draws=draws, verbose=0,
    )  # fmt: skip
    return float(model.loglikelihood), time.perf_counter() - began


# %% Answer


def main(out: Path) -> str:
    """Fit with all; return the table as Markdown."""
    warnings.simplefilter("ignore")
    out.mkdir(parents=True, exist_ok=True)
    rows = []
    for n_agents in (500, 5000):
        choices = Choices(n_agents)
        ours = {p: min(by_us(choices, p) for _ in range(2)) for p in (latent_class, mixed)}
        first = by_lcl(choices)[1]
        others = [
            ("lcl-choice", latent_class, by_lcl(choices)),
            ("biogeme", latent_class, by_biogeme(choices)),
            ("xlogit, 500 draws", mixed, by_xlogit(choices)),
        ]
        for program in (latent_class, mixed):
            height, seconds = ours[program]
            rows.append([f"{n_agents}", program.__name__, "mfgppl", f"{height:.3f}",
                         f"{seconds:.2f}", "1.0"])  # fmt: skip
        for name, program, (height, seconds) in others:
            rows.append([f"{n_agents}", program.__name__, name, f"{height:.3f}",
                         f"{seconds:.2f}", f"{seconds / ours[program][1]:.1f}"])  # fmt: skip
        rows.append([f"{n_agents}", "latent_class", "lcl-choice, first call", "", f"{first:.2f}",
                     f"{first / ours[latent_class][1]:.1f}"])  # fmt: skip
    header = ["agents", "model", "package", "log likelihood", "seconds", "/ mfgppl"]
    text = markdown("Ten choices of each agent among three options", header, rows)
    (out / "static_choices.md").write_text(text)
    return text


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("benchmarks"), help="folder of results")
    print(main(parser.parse_args().out))
