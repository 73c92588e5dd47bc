"""Clustered errors of a logit with few clusters: which tests hold their level?"""

# %% [markdown]
# ## Question
# Villages share a shock that no regressor has. How often does a test of a coefficient that is zero
# refuse it at 5 %: by clustered errors and a normal law, by t with one degree less than there are
# villages, and by the wild score bootstrap?

# %%
from pathlib import Path

import numpy as np
import pandas as pd
from output import run, write_table
from scipy.stats import norm, t

SHOCK = 0.7  # standard deviation of what a village shares
WEBB = np.sqrt([0.5, 1.0, 1.5])
REPLICATIONS = 199
REGRESSORS = {
    "households' own": "partly the village's, partly the household's",
    "villages' own": "the same in a village",
    "one in six villages": "1 in some villages, 0 in the others",
}

# %% [markdown]
# ## Model
# A logit, by its formulas, which `tests/estimation/test_clusters.py` holds against the package's
# fits and tests. It is static, so that thousands of panels take minutes; clustered errors of a game
# are the same sandwich of other scores.


# %%
def logit(x: np.ndarray, y: np.ndarray, free: list[int]) -> np.ndarray:
    """Return the coefficients of a logit by Newton, those not free at zero."""
    at = np.zeros(x.shape[1])
    for _ in range(30):
        chance = 1 / (1 + np.exp(-x @ at))
        bread = (x[:, free] * (chance * (1 - chance))[:, None]).T @ x[:, free]
        step = np.linalg.solve(bread, x[:, free].T @ (y - chance))
        at[free] += step
        if np.abs(step).max() < 1e-9:
            break
    return at


def parts(x: np.ndarray, y: np.ndarray, village: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Return what each village adds to the step of the second coefficient at a point."""
    chance = 1 / (1 + np.exp(-x @ at))
    bread = np.linalg.inv((x * (chance * (1 - chance))[:, None]).T @ x)
    scores = x * (y - chance)[:, None]
    summed = np.array([np.bincount(village, column) for column in scores.T]).T
    return (summed @ bread)[:, 1]


def p_values(x: np.ndarray, y: np.ndarray, village: np.ndarray, rng: np.random.Generator) -> list:
    """Return p by a normal law, by t, and by the wild score bootstrap."""
    fitted, n = logit(x, y, [0, 1]), village.max() + 1
    error = np.sqrt(n / (n - 1) * (parts(x, y, village, fitted) ** 2).sum())
    z = abs(fitted[1] / error)
    added = parts(x, y, village, logit(x, y, [0]))
    seen = added.sum() ** 2 / (added**2).sum()
    weights = np.concatenate([-WEBB, WEBB])[rng.integers(6, size=(REPLICATIONS, n))] * added
    drawn = weights.sum(1) ** 2 / (weights**2).sum(1)
    wild = (1 + (drawn >= seen * (1 - 1e-9)).sum()) / (1 + REPLICATIONS)
    return [2 * norm.sf(z), 2 * t(n - 1).sf(z), wild]


# %% [markdown]
# ## Data
# Villages of 10 to 40 households.


# %%
def panel(regressor: str, n: int, rng: np.random.Generator) -> tuple:
    """Return inputs, answers and villages of one draw, in which the regressor has no effect."""
    village = np.repeat(np.arange(n), rng.integers(10, 40, size=n))
    own = rng.standard_normal(n)
    if regressor == "one in six villages":
        own = np.isin(np.arange(n), rng.permutation(n)[: max(2, n // 6)]).astype(float)
    x = own[village]
    if regressor == "households' own":
        x = 0.7 * x + rng.standard_normal(len(village))
    shock = SHOCK * rng.standard_normal(n)[village]
    y = (rng.random(len(village)) < 1 / (1 + np.exp(0.3 - shock))).astype(float)
    return np.column_stack([np.ones(len(village)), x]), y, village


# %% [markdown]
# ## Answer
# Shares of panels refused at 5 %. Failure would be a bootstrap that refuses far more than 5 %, or a
# t that does worse than the normal.


# %%
def main(quick: bool, out: Path) -> None:
    """Count refusals; with `quick` on twenty panels of each kind."""
    out.mkdir(parents=True, exist_ok=True)
    rows = []
    for regressor in REGRESSORS:
        for n in (6, 12, 30) if quick else (6, 12, 20, 30, 60):
            rng = np.random.default_rng([n, len(regressor)])
            found = [p_values(*panel(regressor, n, rng), rng) for _ in range(20 if quick else 1000)]
            refused = (np.array(found) < 0.05).mean(0)
            rows.append([regressor, n, *refused])
    columns = ["regressor", "clusters", "normal", "t", "wild score bootstrap"]
    write_table(pd.DataFrame(rows, columns=columns), out, "levels")


if __name__ == "__main__":
    here = Path(__file__).resolve().parents[1] / "docs" / "results" / "few_clusters"
    run(main, __doc__, here, "twenty panels of each kind, three numbers of clusters")
