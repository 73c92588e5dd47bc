"""Effects: derivatives by autograd and by solving again, intervals, words, and what is refused."""

import warnings

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
import xarray as xr
from games import ROADS_TRUTH, avoid_crowds, epidemic, fear, played, two_roads

import mfgppl as mfg
from mfgppl.counterfactuals.effects_record import CHOICE, CROWD, FLOW, LARGER, NEXT, relative
from mfgppl.density.of_model import density_of
from mfgppl.equilibrium.response import soft_response
from mfgppl.reward.program import bind

DIFFERENCE = 1e-6  # relative, of central differences over 1e-4


def model_of(game, reward, truth, **options):
    """Return a model along the equilibrium of its truth, and that flow."""
    world = mfg.solve_equilibrium(game, reward, parameters=truth, throw=True).value
    panel = played(game, reward, truth, 300, 1)
    return mfg.TrajectoryModel(game, reward, panel, **({"mean_field": world.mean_field} | options))


@pytest.fixture(scope="module")
def roads():
    return model_of(two_roads(), avoid_crowds, ROADS_TRUTH)


@pytest.fixture(scope="module")
def fit(roads):
    return mfg.mle(roads, svi_steps=0, progressbar=False)


def estimates(found, of, effect):
    return found.rows(of, effect)["estimate"].to_numpy()


def mean_choice(model, policy):
    visits = torch.from_numpy(model.law.counts.actions.sum(-1))
    return (visits[..., None] * policy).sum((0, 1)) / visits.sum()


def test_effects_along_the_flow_held_are_autograds(roads):
    """Of choices and of the flow that they generate, for each parameter."""
    found = mfg.effects(roads, ROADS_TRUTH)
    point = {k: torch.tensor(v, dtype=torch.float64, requires_grad=True)
             for k, v in ROADS_TRUTH.items()}  # fmt: skip
    answer = soft_response(roads.game, bind(avoid_crowds, point), roads.mean_field, temperature=1.0)
    for name, value in point.items():
        for effect, outcome in (
            (CHOICE["held"], mean_choice(roads, answer.policy)),
            (FLOW["held"], answer.mean_field.mean(0)),
        ):
            slope = [torch.autograd.grad(v, value, retain_graph=True)[0].item() for v in outcome]
            np.testing.assert_allclose(estimates(found, name, effect), slope, rtol=DIFFERENCE,
                                       atol=1e-9)  # fmt: skip


def test_effects_through_equilibrium_are_those_of_solving_again(roads):
    """At an equilibrium: the crowd and the choices that other parameters bring about."""
    found, step = mfg.effects(roads, ROADS_TRUTH), 1e-4
    assert found.residual < 1e-9
    for name, value in ROADS_TRUTH.items():
        ends = [
            mfg.solve_equilibrium(
                roads.game, avoid_crowds, parameters=ROADS_TRUTH | {name: value + s * step},
                tolerance=1e-13, throw=True,
            ).value
            for s in (1, -1)
        ]  # fmt: skip
        flow = (ends[0].mean_field - ends[1].mean_field).mean(0) / (2 * step)
        choice = (mean_choice(roads, ends[0].policy) - mean_choice(roads, ends[1].policy)) / (
            2 * step
        )
        for effect, expected in ((FLOW["equilibrium"], flow), (CHOICE["equilibrium"], choice)):
            np.testing.assert_allclose(
                estimates(found, name, effect), expected, rtol=DIFFERENCE, atol=1e-8
            )


def test_a_point_of_the_crowd_is_the_flow_moved_by_hand(roads):
    """The chance to be in a state next, and the shares there, as the crowd moves towards it."""
    found, flow, step = mfg.effects(roads, ROADS_TRUTH), roads.mean_field, 1e-5
    program = bind(avoid_crowds, ROADS_TRUTH)
    visits = torch.from_numpy(roads.law.counts.actions.sum(-1))
    steps = torch.as_tensor(roads.game.transition_along(flow))[0]
    for state, label in enumerate(["left", "right"]):
        towards = torch.nn.functional.one_hot(torch.tensor(state), 2) - flow
        towards = towards / towards[:, state, None]  # its share grows by as much as the step
        up, down = (
            soft_response(roads.game, program, flow + s * step * towards, temperature=1.0)
            for s in (1, -1)
        )
        policy = (up.policy - down.policy) / (2 * step)
        arrives = torch.einsum("ts,tsa,sa->", visits[:-1], policy[:-1], steps[..., state])
        row = found.rows(CROWD, NEXT).loc[label, "estimate"]
        assert row == pytest.approx(float(arrives / visits[:-1].sum()), rel=1e-5)
        shares = ((up.mean_field - down.mean_field) / (2 * step)).mean(0)[state]
        row = found.rows(CROWD, FLOW["held"]).loc[label, "estimate"]
        assert row == pytest.approx(float(shares), rel=1e-5)
    assert (found.rows(CROWD, NEXT)["estimate"] < 0).all()  # drivers avoid crowds


def test_choices_sum_to_zero_and_elasticities_follow(roads):
    """Probabilities sum to 1 whatever the coefficient; 10% of a coefficient is a tenth of it."""
    found = mfg.effects(roads, ROADS_TRUTH)
    level = mean_choice(roads, torch.from_numpy(mfg.policy(roads, ROADS_TRUTH).values)).numpy()
    for name, value in ROADS_TRUTH.items():
        for how in CHOICE:
            slope = estimates(found, name, CHOICE[how])
            assert abs(slope.sum()) < 1e-9
            np.testing.assert_allclose(estimates(found, name, LARGER[how]), 0.1 * value * slope)
            np.testing.assert_allclose(
                estimates(found, name, relative(how)), value * slope / level, rtol=1e-6
            )
        assert abs(estimates(found, name, FLOW["equilibrium"]).sum()) < 1e-8


def test_points_have_the_delta_methods_errors(roads, fit):
    """Of ratios as of `delta_method`; of choices as of its central differences."""
    found = mfg.effects(roads, fit, of="crowding", per="effort")
    ratio = mfg.hypotheses.delta_method(fit, lambda v: v["crowding"] / v["effort"])
    row = found.rows("crowding", "in units of effort").loc[""]
    assert row["estimate"] == pytest.approx(ratio.estimate.iloc[0], rel=1e-6)
    assert row["error"] == pytest.approx(ratio.std_err.iloc[0], rel=1e-3)
    assert row["lower"] == pytest.approx(ratio.lower.iloc[0], rel=1e-3)

    def choice(values):
        found = mfg.effects(roads, dict(values), of="crowding")
        return {"turn": found.rows("crowding", CHOICE["held"]).loc["turn", "estimate"]}

    by_hand = mfg.hypotheses.delta_method(fit, choice)
    row = found.rows("crowding", CHOICE["held"]).loc["turn"]
    assert row["error"] == pytest.approx(by_hand.std_err.iloc[0], rel=1e-2)


def test_draws_have_quantiles_of_each_draws_effect(roads):
    """The table of many draws is that of the draws one by one."""
    rng = np.random.default_rng(1)
    drawn = {"crowding": rng.normal(1.5, 0.1, (2, 5)), "effort": rng.normal(0.4, 0.05, (2, 5))}
    data = xr.Dataset({k: (("chain", "draw"), v) for k, v in drawn.items()})
    tree = xr.DataTree.from_dict({"posterior": data})
    tree.attrs["parameters"] = list(drawn)
    found = mfg.effects(roads, tree, ci_prob=0.8)
    one_by_one = pd.DataFrame([
        mfg.effects(roads, {k: v.ravel()[j] for k, v in drawn.items()}).table["estimate"]
        for j in range(10)
    ])  # fmt: skip
    together = found.table
    np.testing.assert_allclose(together["estimate"], one_by_one.mean()[together.index], rtol=1e-5,
                               atol=1e-9)  # fmt: skip
    np.testing.assert_allclose(
        together["lower"], one_by_one.quantile(0.1)[together.index], rtol=1e-5, atol=1e-9
    )
    assert found.kind == "equal-tailed"
    assert found.n_draws == 10


def test_the_coupled_model_stands_at_its_equilibrium():
    """Effects of a coupled model are taken along the equilibrium of its parameters."""
    model = model_of(two_roads(), avoid_crowds, ROADS_TRUTH, mean_field="equilibrium")
    along = model_of(two_roads(), avoid_crowds, ROADS_TRUTH)
    one, other = (mfg.effects(m, ROADS_TRUTH) for m in (model, along))
    np.testing.assert_allclose(one.table["estimate"], other.table["estimate"], rtol=1e-5, atol=1e-8)


def test_dynamics_that_answer_the_crowd_have_effects():
    """A crowd that moves dynamics alone: through equilibrium as by solving again."""
    truth, game, step = {"illness": 1.0, "distance": 0.5}, epidemic(), 1e-4
    model = model_of(game, fear, truth)
    found = mfg.effects(model, truth, of="illness")
    ends = [
        mfg.solve_equilibrium(game, fear, parameters=truth | {"illness": 1.0 + s * step},
                              tolerance=1e-13, throw=True).value.mean_field
        for s in (1, -1)
    ]  # fmt: skip
    expected = (ends[0] - ends[1]).mean(0) / (2 * step)
    np.testing.assert_allclose(
        estimates(found, "illness", FLOW["equilibrium"]), expected, rtol=1e-5, atol=1e-8
    )


def test_types_and_preferences_are_taken():
    """Two equal types move the crowd as one does; a terminal value and a lapse are answered."""

    def agent(x):
        end = pyro.sample("end", dist.Normal(0.0, 1.0))
        return mfg.Preferences(avoid_crowds(x), terminal=end * (x.state == "left"), lapse=0.1)

    truth = ROADS_TRUTH | {"end": 0.5}
    one = mfg.effects(model_of(two_roads(), agent, truth), truth)
    game = two_roads(types={"size": ["small", "large"]}, initial=[0.4, 0.1, 0.4, 0.1])
    by_type = mfg.effects(model_of(game, agent, truth), truth)
    assert set(by_type.parameters) == {"crowding", "effort", "end"}
    assert by_type.residual < 1e-9
    for effect in FLOW.values():
        for of in (*truth, CROWD):
            np.testing.assert_allclose(
                by_type.rows(of, effect)["estimate"].drop("a state on average", errors="ignore"),
                one.rows(of, effect)["estimate"].drop("a state on average", errors="ignore"),
                rtol=1e-5, atol=1e-8,
            )  # fmt: skip
    assert (by_type.rows(CROWD, NEXT)["estimate"] < 0).all()


def test_kinds_that_are_unseen_keep_their_shares():
    """Along the flow held, each agent's shares of kinds held."""

    def agent(x):
        share = pyro.sample("share", dist.Dirichlet(torch.ones(2)))
        effort = pyro.sample("effort", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        with x.agents:
            kind = pyro.sample("kind", dist.Categorical(share))
        return -effort[kind] * (x.action == "turn")

    truth = {"share": [0.5, 0.5], "effort": [0.2, 1.0]}
    game = two_roads()
    panel = played(game, lambda x: -0.5 * (x.action == "turn"), {}, 200, 1)
    model = mfg.TrajectoryModel(game, agent, panel)
    found = mfg.effects(model, truth, of="effort")
    assert found.kinds_unseen
    effects = set(found.table.index.get_level_values("effect"))
    assert effects == {CHOICE["held"], LARGER["held"], relative("held")}
    total = sum(estimates(found, f"effort[{k}]", CHOICE["held"]) for k in (0, 1))

    def all_alike(by):
        moved = {"share": [0.5, 0.5], "effort": [0.2 + by, 1.0 + by]}
        law, density = model.law, density_of(model)
        flat = [np.array([[*p["share"], *p["effort"]]]) for p in (truth, moved)]
        cores = [np.ascontiguousarray(density.rewards(v)[0]) for v in flat]
        visits = law.expected_counts(law.posterior(cores[0]).share)[0].sum(-1)
        policy = np.exp(law.table_arrays(cores[1])[0])
        return np.einsum("nts,ntsa->a", visits, policy) / visits.sum()

    expected = (all_alike(1e-4) - all_alike(-1e-4)) / 2e-4
    np.testing.assert_allclose(total, expected, rtol=1e-5, atol=1e-9)


def test_what_the_data_do_not_identify_has_effects_and_no_ratio():
    """Two collinear coefficients: choices have intervals, their elasticities none, and a reason."""

    def reward(x):
        a, b = (pyro.sample(k, dist.Normal(0.0, 1.0)) for k in "ab")
        return -(a + 2 * b) * (x.action == "turn")

    panel = played(two_roads(), lambda x: -0.5 * (x.action == "turn"), {}, 300, 1)
    model = mfg.TrajectoryModel(two_roads(), reward, panel)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mfg.exceptions.IdentificationWarning)
        fit = mfg.mle(model, svi_steps=0, progressbar=False)
    found = mfg.effects(model, fit)
    assert found.rows("a", CHOICE["held"])["error"].notna().all()
    assert found.rows("a", relative("held"))["error"].isna().all()
    assert any("which the data do not identify" in message for message in found.messages)


def test_sentences_say_it_in_points(roads, fit):
    """One sentence for each parameter and one for the crowd, with the numbers of the table."""
    found = mfg.effects(roads, fit)
    assert len(found.sentences) == 4
    row = 100 * found.rows("effort", LARGER["held"]).loc["turn"]
    sentence = found.of_parameter("effort")
    assert sentence.startswith("If effort were 10% larger, agents would choose “")
    assert f"{abs(row['estimate']):.2g} points" in sentence
    now = found.rows(CROWD, NEXT).loc["a state on average", "estimate"]
    assert f"{abs(now):.2g} points less likely to be there" in found.of_crowd
    assert found.of_crowd in repr(found)
    (on_choice,) = found.of_crowd_on_choices
    row = 10 * found.rows(CROWD, "choice of turn").loc["left"]  # or of the right one, as the other
    assert on_choice.startswith("Ten points more of the crowd in state “")
    assert f"by {abs(row['estimate']):.2g} points" in on_choice
    assert on_choice in found.sentences


def follow(x):
    """Drivers turn where many are on the right road, small ones of their own kind."""
    herd, effort = (pyro.sample(k, dist.Normal(0.0, 1.0)) for k in ("herd", "effort"))
    return (herd * x.share(state="right", within="size") - effort) * (x.action == "turn")


def test_a_share_that_the_reward_asks_for_moves_choices_as_along_another_flow():
    """Of each type, the right road's share a little larger and smaller, and the response to it."""
    game = two_roads(types={"size": ["small", "large"]}, initial=[0.5, 0.1, 0.3, 0.1])
    model = model_of(game, follow, {"herd": 1.5, "effort": 0.4})
    truth, step = {"herd": 1.5, "effort": 0.4}, 1e-5
    found = mfg.effects(model, truth)
    assert found.shares == ("with state = right among those of one size",)
    by_type = model.mean_field.reshape(-1, 2, 2)
    mass = by_type.sum(-1)
    choices = []
    for sign in (1, -1):
        right = by_type[..., 1] + sign * step * mass
        flow = torch.stack([mass - right, right], -1).reshape(model.mean_field.shape)
        policy = soft_response(game, bind(follow, truth), flow, temperature=1.0).policy
        choices.append(mean_choice(model, policy))
    slope = (choices[0] - choices[1]) / (2 * step)
    for action, expected in zip(game.actions, slope, strict=True):
        row = found.rows(CROWD, f"choice of {action}").loc[found.shares[0]]
        np.testing.assert_allclose(row["estimate"], expected, rtol=DIFFERENCE)
    (said,) = found.of_crowd_on_choices
    points = 10 * slope[1].item()
    assert said == (
        "Ten points more of the crowd with state = right among those of one size, at all times, "
        f"raise the probability of “turn” by {points:.2g} points."
    )


def test_a_joint_flow_gives_the_effect_of_what_others_do():
    """In each state the share of an action a little larger and smaller, others in proportion."""

    def echo(x):
        return pyro.sample("echo", dist.Normal(0.0, 1.0)) * x.occupancy.sum(-2, keepdim=True)

    game = two_roads(joint=True)
    truth, step = {"echo": 1.2}, 1e-5
    model = model_of(game, echo, truth)
    found = mfg.effects(model, truth)
    assert found.shares == ("choosing “stay”", "choosing “turn”")
    flow, choices = model.mean_field, []
    mass = flow.sum(-1)
    for sign in (1, -1):
        turn = flow[..., 1] + sign * step * mass
        near = torch.stack([mass - turn, turn], -1)
        policy = soft_response(game, bind(echo, truth), near, temperature=1.0).policy
        choices.append(mean_choice(model, policy)[1])
    slope = (choices[0] - choices[1]).item() / (2 * step)
    row = found.rows(CROWD, "choice of turn").loc["choosing “turn”"]
    np.testing.assert_allclose(row["estimate"], slope, rtol=DIFFERENCE)


def test_the_figure_draws_the_table(roads, fit):
    """Left one row per parameter and action, right one per state and their average."""
    found = mfg.effects(roads, fit)
    figure = mfg.plots.plot_effects(found)
    left, right = figure.axes
    assert left.get_yticklabels()[0].get_text() == "crowding: stay"
    held = 100 * found.choices()["estimate"].to_numpy()
    np.testing.assert_allclose(left.lines[1].get_xdata(), held)
    assert len(right.get_yticklabels()) == 3


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"of": "crowdin"}, ValueError, "`of` names 'crowdin', which is no parameter;.*crowding"),
        ({"per": "nothing"}, ValueError, "`per` names 'nothing', which is no parameter"),
        ({"draws": 0}, ValueError, "`draws`"),
        ({"ci_prob": 1.5}, ValueError, "`ci_prob`"),
    ],
)
def test_wrong_options_are_told(roads, options, error, words):
    with pytest.raises(error, match=words):
        mfg.effects(roads, ROADS_TRUTH, **options)


def test_the_energy_law_is_refused(roads):
    model = mfg.TrajectoryModel(roads.game, avoid_crowds, roads.panel, likelihood="energy")
    with pytest.raises(ValueError, match="effects needs likelihood='causal'"):
        mfg.effects(model, ROADS_TRUTH)


def test_as_many_draws_are_taken_of_each_chain():
    """Of four chains fifty draws at most are twelve each, 48, and the record says so."""
    model = mfg.TrajectoryModel(
        two_roads(), avoid_crowds, played(two_roads(), avoid_crowds, ROADS_TRUTH, 400, 1)
    )
    one = mfg.laplace(model, draws=400, random_seed=1, progressbar=False)
    posterior = one["posterior"].to_dataset()
    chains = [
        posterior.isel(draw=slice(k, None, 4)).assign_coords(draw=range(100)) for k in range(4)
    ]
    four = xr.DataTree.from_dict({"posterior": xr.concat(chains, "chain")})
    four.attrs = one.attrs
    assert mfg.effects(model, four, draws=50).n_draws == 48
    assert "as many of each chain: 50 of four chains are 48" in mfg.effects.__doc__
