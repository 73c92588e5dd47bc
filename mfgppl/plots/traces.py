"""Figures of how a sampler moved: draws in order, ranks by chain, energies."""

import itertools
from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import scipy.stats
from matplotlib.figure import Figure

from mfgppl.plots.predictions import Drawing
from mfgppl.plots.style import AMBER, BAND, DOT, GREEN, GREY, INK, PURPLE

MOST_PARAMETERS = 6
MOST_POINTS = 150  # of a chain in a trace
LEVEL = 0.99  # of the band of ranks
BINS = 40
CHAINS = [INK, DOT, GREEN, AMBER, PURPLE, GREY]


def sampler_drawings(entries: Mapping[str, np.ndarray], energy: np.ndarray) -> tuple[Drawing, ...]:
    """Return the figures of a sampler.

    Parameters
    ----------
    entries : mapping of str to ndarray, shape (chains, draws)
        Draws of each parameter.
    energy : ndarray, shape (chains, draws)
        The sampler's energies.
    """
    shown = dict(itertools.islice(entries.items(), MOST_PARAMETERS))
    first = f"the first {len(shown)} of {len(entries)} parameters; " * (len(shown) < len(entries))
    return (
        (
            f"Left: draws in order, by chain. Right: {first}ranks of each chain's draws among all, "
            f"as cumulative share less what it is if chains agree; within the {100 * LEVEL:g}% "
            "band they do",
            lambda: _traces_and_ranks(shown),
        ),
        (
            "Energies: the two curves have one width if the sampler moves well",
            lambda: _energies(energy),
        ),
    )


def _traces_and_ranks(entries: Mapping[str, np.ndarray]) -> Figure:
    n = len(entries)
    figure, axes = plt.subplots(n, 2, figsize=(7.2, 0.5 + 1.25 * n), squeeze=False, sharex="col",
                                layout="constrained")  # fmt: skip
    for (trace, rank), (name, values) in zip(axes, entries.items(), strict=True):
        some = np.linspace(0, values.shape[1] - 1, min(values.shape[1], MOST_POINTS)).astype(int)
        place = np.linspace(0.0, 1.0, 100)
        away = rank_differences(values, place)
        for k, chain in enumerate(values):
            colour = CHAINS[k % len(CHAINS)]
            trace.plot(some, chain[some], lw=0.5, color=colour)
            rank.plot(place, away[k], lw=1.0, color=colour)
        half = band_of_ranks(*values.shape)
        rank.fill_between(place, -half, half, color=BAND, alpha=0.4, lw=0)
        trace.set_title(name, fontsize=10, loc="left")
        for axis in (trace, rank):
            axis.tick_params(labelsize=8)
            axis.spines[["top", "right"]].set_visible(False)
    axes[-1, 0].set_xlabel("draw")
    axes[-1, 1].set_xlabel("rank among all draws, as a share")
    return figure


def rank_differences(values: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Return by how much the share of a chain's draws below each rank differs from that rank.

    Parameters
    ----------
    values : ndarray, shape (chains, draws)
        Draws of one parameter.
    place : ndarray, shape (n,)
        Ranks among all draws, as shares.

    Returns
    -------
    ndarray, shape (chains, n)
        Differences.
    """
    share = scipy.stats.rankdata(values.ravel()).reshape(values.shape) / values.size
    below = np.sort(share, axis=1)
    return np.array([np.searchsorted(row, place, side="right") / len(row) for row in below]) - place


def band_of_ranks(n_chains: int, n_draws: int) -> float:
    """Return the half-width of a band that holds all chains' rank differences at once.

    By the inequality of Dvoretzky, Kiefer and Wolfowitz, with the error shared by the chains; for
    draws without replacement it holds as well.
    """
    return float(np.sqrt(np.log(2 * n_chains / (1 - LEVEL)) / (2 * n_draws)))


def _energies(energy: np.ndarray) -> Figure:
    figure, axis = plt.subplots(figsize=(5.2, 2.4), layout="constrained")
    for values, label, colour in (
        (energy - energy.mean(), "energies", INK),
        (np.diff(energy, axis=1), "changes from draw to draw", DOT),
    ):
        axis.hist(values.ravel(), BINS, density=True, histtype="step", color=colour, label=label)
    axis.set_xlabel("energy less its mean, nats")
    axis.set_yticks([])
    axis.legend(frameon=False, fontsize=8)
    axis.spines[["top", "right", "left"]].set_visible(False)
    return figure
