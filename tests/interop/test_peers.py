"""The page "Coming from another library": each pair of snippets, run against the other library."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "coming_from.md").read_text("utf-8")


def blocks(section: str) -> list[str]:
    """Return the code of a section of the page, theirs and ours."""
    text = PAGE.split(f"\n## {section}\n")[1].split("\n## ")[0]
    return re.findall(r"```py(?:thon)?\n(.*?)```", text, re.DOTALL)


@pytest.fixture(scope="module")
def logit():
    """What our block of the logit leaves behind."""
    names = {}
    exec(blocks("statsmodels and xlogit")[1], names)
    return names


def test_a_logit_is_that_of_statsmodels(logit):
    """Estimates to five digits, clustered errors but for its factor (N - 1) / (N - K)."""
    pytest.importorskip("statsmodels", reason="statsmodels is not installed")
    names = {}
    exec(blocks("statsmodels and xlogit")[0].replace(".fit(cov", ".fit(disp=False, cov"), names)
    peer = names["peer"]
    table = logit["fit"].summary(kind="cluster")
    np.testing.assert_allclose(table["estimate"], peer.params.to_numpy().T.ravel(), rtol=1e-5)
    n, k = len(names["seen"]), 4
    factor = np.sqrt((n - 1) / (n - k))
    np.testing.assert_allclose(factor * table["std_err"], peer.bse.to_numpy().T.ravel(), rtol=2e-4)


def test_a_logit_is_that_of_xlogit(logit):
    """Long format, one row per alternative, the same maximum."""
    pytest.importorskip("xlogit", reason="xlogit is not installed")
    names = {"seen": logit["mfg"].datasets.supermarket_pricing().dropna(subset="action")}
    exec(blocks("statsmodels and xlogit")[2].replace('"choice"])', '"choice"], verbose=0)'), names)
    peer = names["peer"]
    np.testing.assert_allclose(logit["fit"].params, peer.coeff_, rtol=1e-3)
    assert logit["fit"].llf == pytest.approx(peer.loglikelihood, rel=1e-7)


# Each peer's place among the blocks, what keeps it quiet, and its draws of the weights.
SAMPLERS = {
    "numpyro": (
        0, ("num_samples=1000)", "num_samples=1000, progress_bar=False)"),
        "sampler.get_samples()['w']",
    ),
    "pymc": (
        1, ("random_seed=1)", "random_seed=1, progressbar=False)"),
        "theirs.posterior['w'].values.reshape(-1, 4)",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def posterior(logit):
    """Means and deviations of our draws."""
    ours = blocks("PyMC and NumPyro")[2]
    exec(ours.replace("flow_bias=False)", "flow_bias=False, progressbar=False)"), logit)
    return logit["mfg"].results.summary(logit["draws"])


@pytest.mark.parametrize("peer", SAMPLERS)
def test_a_posterior_is_that_of_a_peer(peer, posterior, tmp_path):
    """Means within Monte Carlo error, deviations within 15%; theirs in a process of its own."""
    pytest.importorskip(peer, reason=f"{peer} is not installed")
    place, quiet, drawn = SAMPLERS[peer]
    theirs = blocks("PyMC and NumPyro")[place].replace(*quiet)
    seen = "import mfgppl\nseen = mfgppl.datasets.supermarket_pricing().dropna(subset='action')\n"
    saved = f"import numpy\nnumpy.save('draws.npy', {drawn})\n"
    script = "\n".join([seen, theirs, saved])
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)  # JAX forbids forks
    draws = np.load(tmp_path / "draws.npy")
    error = 6 * draws.std(0) / np.sqrt(300)  # a floor of the effective sample size
    assert (np.abs(posterior["estimate"] - draws.mean(0)) < error).all()
    np.testing.assert_allclose(posterior["error"], draws.std(0), rtol=0.15)


def test_rusts_bus_engines_are_those_of_econirl():
    """Along its estimated transition both fits have one maximum."""
    pytest.importorskip("econirl", reason="econirl is not installed")
    theirs, ours = blocks("econirl")
    names = {}
    exec(theirs, names)
    names["buses"] = names["load_rust_bus"]()
    keep = np.asarray(names["peer"].transitions_)
    names["transition"] = np.stack([keep, np.broadcast_to(keep[0], keep.shape)], axis=1)
    exec(ours, names)
    peer, fit = names["peer"].params_, names["fit"]
    for name, value in peer.items():
        assert fit.params[name] == pytest.approx(value, rel=1e-3)
