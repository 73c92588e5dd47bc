"""Checks of draws: what is constant has no R-hat, what is no number never passes."""

import numpy as np
import pytest
import xarray as xr

from mfgppl.posterior.convergence import convergence_messages

CHAINS, DRAWS = 4, 500


def draws_of(**entries):
    """Return sound draws beside given ones, (chain, draw, ...)."""
    shape = (CHAINS, DRAWS)
    sound = np.random.default_rng(0).standard_normal(shape)
    arrays = {"sound": (("chain", "draw"), sound)}
    for name, values in entries.items():
        dims = ("chain", "draw", *(f"{name}_{k}" for k in range(np.ndim(values) - 2)))
        arrays[name] = (dims, np.asarray(values, dtype=float))
    still = {
        k: (("chain", "draw"), np.zeros(shape, bool))
        for k in ("diverging", "reached_max_treedepth")
    }
    found = xr.DataTree.from_dict(
        {"posterior": xr.Dataset(arrays), "sample_stats": xr.Dataset(still)}
    )
    found.attrs["parameters"] = ["sound"]  # the others are computed from it
    return found


def mixed(rng, *shape):
    return rng.standard_normal((CHAINS, DRAWS, *shape))


@pytest.mark.parametrize("constant", [0.0, -np.inf, 3.5])
def test_entries_that_never_change_are_no_fault(constant):
    """A table with constant entries is judged by those that vary."""
    table = mixed(np.random.default_rng(1), 3)
    table[..., 0] = constant
    assert convergence_messages(draws_of(table=table)) == []
    table[0, :, 1] += 10.0
    (message, *_) = convergence_messages(draws_of(table=table))
    assert message.startswith("R-hat is")
    assert "table" in message


def test_draws_that_are_no_numbers_never_pass():
    """One NaN in one entry is said, with how many entries have some."""
    table = mixed(np.random.default_rng(1), 3)
    table[2, 7, 1] = np.nan
    (message,) = convergence_messages(draws_of(table=table))
    assert message.startswith("1 of 3 entries of table is not a number in some draws")
    table[..., 0] = np.nan
    (message,) = convergence_messages(draws_of(table=table))
    assert message.startswith("2 of 3 entries of table")


def test_chains_that_stand_still_apart_disagree():
    """What is constant within chains and differs between them is no constant."""
    stuck = np.broadcast_to(np.arange(4.0)[:, None], (CHAINS, DRAWS))
    messages = convergence_messages(draws_of(stuck=stuck))
    assert any("stuck" in m and "disagree" in m for m in messages)


def test_chains_that_do_not_move_are_said_to():
    """Nothing varies at all: that is no convergence."""
    draws = draws_of()
    draws["posterior"]["sound"][:] = 1.0
    assert any("did not move" in m for m in convergence_messages(draws))


def test_chains_about_maxima_of_different_height_are_several_modes():
    """Heights that differ between chains by more than within are said; those that mix are not."""
    draws = draws_of()
    rng = np.random.default_rng(3)
    heights = -100.0 + rng.standard_normal((CHAINS, DRAWS))
    stats = draws["sample_stats"].dataset.assign(lp=(("chain", "draw"), heights))
    draws["sample_stats"] = xr.DataTree(stats)
    assert convergence_messages(draws) == []
    heights[2] -= 50.0
    (message,) = convergence_messages(draws)
    assert message.startswith("1 of 4 chains stay about a lower maximum of the density")
    assert "several modes" in message
    assert "-150" in message
