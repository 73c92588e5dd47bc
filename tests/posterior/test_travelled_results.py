"""Results that were selected, thinned, reordered or opened by others, and labels of their draws."""

import warnings

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import mfgppl as mfg
from mfgppl.density.draws import listed, received

pytestmark = pytest.mark.filterwarnings("ignore::mfgppl.exceptions.ConvergenceWarning")


@pytest.fixture(scope="module")
def result(roads_model):
    """Draws of two chains."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mfg.exceptions.ConvergenceWarning)
        return mfg.nuts(
            roads_model, draws=300, tune=200, chains=2, random_seed=1, progressbar=False
        )


@pytest.fixture(scope="module")
def opened(result, tmp_path_factory):
    """The same, written and opened by xarray."""
    path = tmp_path_factory.mktemp("travelled") / "fit.nc"
    mfg.save(result, path)
    with xr.open_datatree(path) as tree:
        return tree.load()


def test_lists_are_lists_whoever_opened_the_file(result, opened):
    found = received(opened).attrs
    assert found["parameters"] == ["crowding", "effort"]
    assert found["warnings"] == result.attrs["warnings"]
    odd = {"parameters": np.array(["a", "b"]), "warnings": "no JSON", "other": 1}
    assert listed(odd) == {"parameters": ["a", "b"], "warnings": ["no JSON"], "other": 1}


def test_checks_say_the_same_of_a_result_however_it_travelled(result, opened, roads_model):
    turned = {k: child.to_dataset() for k, child in result.children.items()}
    turned = {k: v.transpose(..., *(d for d in ("draw", "chain") if d in v.dims))
              for k, v in turned.items()}  # fmt: skip
    turned = xr.DataTree.from_dict(turned)
    pairs = [(opened, result), (turned, result), (result.isel(chain=1), result.isel(chain=[1]))]
    for tree, usual in pairs:
        assert mfg.loo(tree).elpd == pytest.approx(mfg.loo(usual).elpd, rel=1e-12)
        assert mfg.policy(roads_model, tree).equals(mfg.policy(roads_model, usual))
        pd.testing.assert_frame_equal(
            mfg.checks.contraction(tree, roads_model, prior_draws=20),
            mfg.checks.contraction(usual, roads_model, prior_draws=20),
        )


def test_a_tree_of_arviz_before_version_1_is_taken(result, roads_model):
    class Before:
        attrs = result.attrs

        def to_datatree(self):
            return result

    assert mfg.policy(roads_model, Before()).equals(mfg.policy(roads_model, result))
    assert mfg.loo(Before()).elpd == mfg.loo(result).elpd


def test_predictive_draws_have_the_labels_of_their_draws(result, roads_model):
    """Joined by label, shares follow what their own draws expect."""
    drawn = result["posterior_predictive"]["share_by_time"].sel(action="turn")
    assert drawn["draw"].values[[0, -1]].tolist() == [0, 299]
    policy = mfg.policy(roads_model, result, draws=600).sel(action="turn")
    visits = result["constant_data"]["visits"]
    expected = (policy * visits).sum("state") / visits.sum("state")
    expected, drawn = xr.align(expected, drawn)
    assert expected.sizes["draw"] == 125
    spread = np.sqrt(expected * (1 - expected) / visits.sum("state"))
    within = float((((drawn - expected) / spread) ** 2).mean())
    assert within == pytest.approx(1.0, abs=0.15)  # 1000 shares; 1.3 where draws are mixed up
    counts = result["posterior_predictive"]["action_counts"]
    assert (counts.sum("action") == visits).all()


def test_a_selection_keeps_the_labels_of_its_draws(result, roads_model):
    later = result.sel(draw=slice(200, None)).isel(chain=[1])
    found = mfg.policy(roads_model, later, draws=5)
    assert found["chain"].values.tolist() == [1]
    assert found["draw"].values.tolist() == [200, 225, 250, 274, 299]
    whole = mfg.policy(roads_model, result, draws=600)
    xr.testing.assert_allclose(found, whole.sel(chain=[1], draw=found["draw"]))


def test_rows_of_checks_are_labelled_by_chain_and_draw(result, roads_model):
    later = result.sel(draw=slice(200, None))
    kept = pd.MultiIndex.from_product([[0, 1], [200, 299]], names=["chain", "draw"])
    away = mfg.checks.runaway(roads_model, later, draws=4, progressbar=False)
    assert away.table.index.equals(kept)
    rounds = mfg.checks.observed_exploitability(roads_model, later, draws=4, random_seed=1).rounds
    assert rounds.index.equals(kept)
    changed = roads_model.game.replace(temperature=1.5)
    found = mfg.counterfactual(roads_model, later, changed, draws=4, progressbar=False)
    assert found.status.index.equals(kept)
    rows = found.draws
    own = result["posterior"]["effort"].sel(chain=rows["chain"], draw=rows["draw"])
    np.testing.assert_array_equal(rows["parameters"].sel(parameter="effort"), own)
    assert found.bands()["flow"].dims == ("band", "world", "time", "state")


def test_replications_keep_their_labels(roads_model):
    fits = pd.DataFrame({"crowding": [1.0, np.nan, 1.5], "effort": [0.4, 0.4, 0.5]}, [3, 4, 7])
    found = mfg.checks.runaway(roads_model, fits, progressbar=False)
    assert found.table.index.tolist() == [3, 7]
    assert found.n_left_out == 1


def test_a_tree_put_together_from_groups_is_reported_with_its_attributes(
    result, roads_model, tmp_path
):
    """What needs draws alone takes it as it is; a report says what it lacks, and then takes it."""
    groups = {name: result[name].to_dataset() for name in result.children}
    halves = {
        name: xr.concat([group.isel(chain=[k]) for k in range(2)], "chain")
        if "chain" in group.dims else group
        for name, group in groups.items()
    }  # fmt: skip
    merged = xr.DataTree.from_dict(halves)
    assert mfg.policy(roads_model, merged).equals(mfg.policy(roads_model, result))
    page = tmp_path / "page.md"
    for given in ({}, {"model": roads_model}):
        with pytest.raises(ValueError, match=r"'inference_library'.*merged.attrs = draws.attrs"):
            mfg.report(merged, page, **given)
    other = xr.DataTree.from_dict(halves)
    other.attrs = {"inference_library": "pymc"}
    with pytest.raises(ValueError, match="its library is 'pymc'"):
        mfg.report(other, page)
    assert not page.exists()
    merged.attrs = result.attrs
    assert mfg.report(merged, page) == page
    assert "crowding" in page.read_text()


USES = {
    "loo": lambda model, tree: mfg.loo(tree),
    "contraction": lambda model, tree: mfg.checks.contraction(tree, model),
    "policy": lambda model, tree: mfg.policy(model, tree),
    "residuals": lambda model, tree: mfg.checks.residuals(model, tree),
    "predictive_check": lambda model, tree: mfg.predictive_check(model, tree, random_seed=1),
    "observed_exploitability": lambda model, tree: mfg.checks.observed_exploitability(
        model, tree, random_seed=1
    ),
    "runaway": lambda model, tree: mfg.checks.runaway(model, tree, progressbar=False),
    "counterfactual": lambda model, tree: mfg.counterfactual(
        model, tree, model.game, progressbar=False
    ),
    "identify": lambda model, tree: mfg.identify(model.game, model.reward, parameters=tree),
    "report": lambda model, tree: mfg.report(tree, "report.html"),
    "nuts": lambda model, tree: mfg.nuts(model, init=tree, progressbar=False),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_draws_that_are_not_finite_are_refused(use, value, result, roads_model):
    broken = result.copy(deep=True)
    broken["posterior"]["effort"].values[1, 7] = value
    with pytest.raises(ValueError, match="finite draws; 1 of 600 draws of 'effort'"):
        USES[use](roads_model, broken)


def test_a_log_likelihood_without_value_is_refused(result):
    broken = result.copy(deep=True)
    broken["log_likelihood"]["actions"].values[0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        mfg.loo(broken)


def test_a_selection_without_draws_is_refused(result, roads_model):
    with pytest.raises(ValueError, match="must have draws"):
        mfg.policy(roads_model, result.isel(draw=slice(0, 0)))
