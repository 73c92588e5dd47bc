"""Seeds of any length: an int, a numpy integer, a SeedSequence, or what a result says."""

import numpy as np
import pytest
import torch
from logits import COUNTS, logit

import mfgppl as mfg
from mfgppl._arguments import LARGEST, kept_seed, seed_of, torch_seed
from mfgppl._replication import seeds_of
from mfgppl.models import left_right

LONG = 0x9E3779B97F4A7C15F39CC0605CEDC834


def test_seeds_are_read_alike():
    """Integers are themselves, a sequence is the number of its stream."""
    assert seed_of(7) == seed_of(np.int64(7)) == 7
    assert seed_of(np.array(7)) == seed_of(torch.tensor(7)) == 7
    assert seed_of(LONG) == seed_of(str(LONG)) == LONG
    sequence = np.random.SeedSequence(LONG)
    assert seed_of(sequence) == seed_of(np.random.SeedSequence(LONG))
    one, other = sequence.spawn(2)
    assert len({seed_of(s) for s in (sequence, one, other)}) == 3
    assert seed_of(sequence) > 2**64
    assert seeds_of(sequence, 3) == seeds_of(seed_of(sequence), 3)


@pytest.mark.parametrize("wrong", [1.5, True, "x", [1, 2], np.array([1]), np.array(1.0)])
def test_what_is_no_seed_is_refused(wrong):
    """The message names the argument."""
    with pytest.raises(TypeError, match="`random_seed` must be an integer"):
        seed_of(wrong)


def test_without_a_seed_one_is_drawn():
    """No two are alike."""
    drawn = [seed_of(None) for _ in range(4)]
    assert len(set(drawn)) == 4
    assert all(0 <= seed < 2**32 for seed in drawn)


def test_long_seeds_reach_torch_and_files():
    """Torch takes 64 bits, files too; short seeds stay as they are."""
    assert torch_seed(LARGEST) == LARGEST
    assert 0 <= torch_seed(LONG) <= LARGEST
    assert torch_seed(LONG) != torch_seed(LONG + 1)
    assert kept_seed(LARGEST) == LARGEST
    assert seed_of(kept_seed(LONG)) == LONG


def test_a_result_with_a_long_seed_is_saved_and_says_it(tmp_path):
    """What it says gives the same draws again."""
    model = logit(COUNTS, (1.0, 1.0))
    draws = mfg.laplace(model, draws=100, random_seed=LONG, progressbar=False)
    mfg.save(draws, tmp_path / "draws.nc")
    kept = mfg.load(tmp_path / "draws.nc")
    again = mfg.laplace(model, draws=100, random_seed=kept.attrs["random_seed"], progressbar=False)
    np.testing.assert_array_equal(again["posterior"]["a"], kept["posterior"]["a"])


@pytest.mark.parametrize("seed", [LONG, np.random.SeedSequence(LONG), np.uint64(2**64 - 1)])
def test_every_function_takes_long_seeds(seed):
    """Point fits, draws, panels, resamples and parts."""
    model = logit(COUNTS, (1.0, 1.0))
    quiet = {"progressbar": False}
    assert mfg.mle(model, random_seed=seed, svi_steps=5, **quiet).converged
    assert mfg.mle(model, random_seed=seed, restarts=1, svi_steps=0, **quiet).converged
    assert mfg.flows.cross_fit(model, folds=2, random_seed=seed).converged
    assert len(mfg.bootstrap(model, replications=2, random_seed=seed, **quiet)) == 2
    assert mfg.calibration.replicate(lambda stream: stream, 2, random_seed=seed, **quiet)
    world = mfg.solve_equilibrium(left_right.game(), left_right.reward, parameters=left_right.TRUTH)
    drawn = [
        mfg.simulate(
            left_right.game(), world.value.policy, world.value.mean_field, n_agents=20,
            random_seed=seed,
        ).to_frame()
        for _ in range(2)
    ]  # fmt: skip
    assert drawn[0].equals(drawn[1])
