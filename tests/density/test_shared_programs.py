"""What models of one game along one flow share: a compiled program, and draws from its prior."""

import numpy as np
from games import ROUNDING

from mfgppl.density.of_model import density_of, of_panel

THETA = np.array([0.3, -0.2])


def test_parts_along_the_models_flow_share_its_program(roads_model):
    """Value and gradient are those of a model built anew; along another flow nothing is shared."""
    part = roads_model.panel.subset(np.arange(20))
    shared = density_of(of_panel(roads_model, part, roads_model.mean_field))
    anew = density_of(roads_model.with_panel(part, mean_field=roads_model.mean_field))
    for a, b in zip(shared.evaluator()(THETA), anew.evaluator()(THETA), strict=True):
        np.testing.assert_allclose(a, b, rtol=ROUNDING)
    assert shared.compiled is density_of(roads_model).compiled is not anew.compiled
    elsewhere = density_of(of_panel(roads_model, part, "empirical"))
    assert elsewhere.compiled is not shared.compiled
    assert elsewhere.evaluator()(THETA)[0] != shared.evaluator()(THETA)[0]


def test_draws_from_the_prior_are_kept_whole(roads_model):
    """A caller who changes one changes no other; seeds that are not kept are drawn likewise."""
    program = density_of(roads_model).program
    for seed in (3, 1000):
        first = program.draw(seed)
        as_drawn = first.copy()
        first += 1.0
        np.testing.assert_array_equal(program.draw(seed), as_drawn)
    assert (program.draw(3) != program.draw(4)).all()


def test_copies_of_a_trajectory_have_owners_of_their_own(roads_model):
    """Without repeats owners are numbered as they come; with repeats each copy is one more."""
    panel = roads_model.panel
    assert panel.subset(np.array([3, 0, 5])).owner.tolist() == [0, 1, 2]
    assert panel.subset(np.array([3, 3, 5, 3])).owner.tolist() == [0, 1, 2, 3]
    assert panel.subset(np.array([3, 3, 5, 3])).n_owners == 4
