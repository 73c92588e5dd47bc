"""Both likelihoods against brute-force enumeration on tiny games, under all options."""

import itertools

import numpy as np
import pytest
import torch
from reference import (
    all_futures,
    as_panel,
    causal_log_likelihood,
    energy_log_likelihood,
    energy_weight,
    finite_difference,
    soft_policy,
    table_program,
    tiny_case,
)

import mfgppl as mfg
from mfgppl.likelihood.terms import add_up

ROUNDING = 1e-10
FORMS = ["causal", "marginal", "conditional"]
OPTIONS = [
    {"by_time": by_time, "masked": masked, "temperature": temperature}
    for by_time, masked, temperature in itertools.product([False, True], [False, True], [1.0, 0.4])
]


def model_of(case, form):
    """Return the trajectory model of a case under a form of the likelihood."""
    if form == "causal":
        return mfg.TrajectoryModel(case.game, table_program(case.reward), case.panel)
    return mfg.TrajectoryModel(
        case.game, table_program(case.reward), case.panel, likelihood="energy", start=form
    )


def masked_reward(model, reward):
    """Return a reward as the kernels take it."""
    return model.masked(torch.as_tensor(reward)).numpy().copy()


def expected_by_path(case, model, form):
    """Return what enumeration says of each path."""
    if form == "causal":
        return causal_log_likelihood(case)
    return energy_log_likelihood(case, model.law.entry, marginal=form == "marginal")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(map(str, o.values())))
@pytest.mark.parametrize("seed", range(4))
def test_log_likelihood_equals_enumeration(form, options, seed):
    """Kernel, twin and the sum over trajectories equal brute force on unbalanced panels."""
    case = tiny_case(seed, **options)
    model = model_of(case, form)
    reward = masked_reward(model, case.reward)
    expected = expected_by_path(case, model, form)
    value, _ = model.law.evaluator()(reward)
    assert value == pytest.approx(expected.sum(), abs=ROUNDING)
    twin = model.law.log_likelihood(torch.as_tensor(reward))
    assert twin.item() == pytest.approx(expected.sum(), abs=ROUNDING)
    terms = model.law.terms(case.panel)
    by_path = add_up(terms, model.law.table_arrays(reward), len(case.paths))
    np.testing.assert_allclose(by_path, expected, atol=ROUNDING)
    twins = [t.numpy() for t in model.law.tables(torch.as_tensor(reward))]
    np.testing.assert_allclose(add_up(terms, twins, len(case.paths)), expected, atol=ROUNDING)


@pytest.mark.parametrize("discount", [0.5, 0.9])
@pytest.mark.parametrize("seed", range(4))
def test_discounted_causal_likelihood_equals_enumeration(discount, seed):
    """The causal likelihood is exact with a discount."""
    case = tiny_case(seed, discount=discount, by_time=seed % 2 == 0)
    model = model_of(case, "causal")
    value, _ = model.law.evaluator()(case.reward)
    assert value == pytest.approx(causal_log_likelihood(case).sum(), abs=ROUNDING)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(map(str, o.values())))
def test_gradient_equals_finite_differences_and_the_twin(form, options):
    """The analytic adjoint equals central differences and the twin's autograd."""
    case = tiny_case(11, **options)
    model = model_of(case, form)
    evaluate = model.law.evaluator()
    reward = masked_reward(model, case.reward)
    gradient = evaluate(reward)[1].copy()
    finite = np.isfinite(reward)

    def value(table):
        return evaluate(np.where(finite, table, -np.inf))[0]

    numeric = finite_difference(value, np.where(finite, reward, 0.0))
    np.testing.assert_allclose(gradient[finite], numeric[finite], atol=1e-7)
    assert (gradient[~finite] == 0).all()
    free = torch.as_tensor(np.where(finite, reward, 0.0)).requires_grad_(True)
    masked = free.masked_fill(torch.as_tensor(~finite), -torch.inf)
    (twin,) = torch.autograd.grad(model.law.log_likelihood(masked), free)
    np.testing.assert_allclose(gradient, twin.numpy(), atol=ROUNDING)


def test_discounted_gradient_equals_finite_differences():
    """The adjoint carries the discount."""
    case = tiny_case(5, discount=0.7, by_time=True)
    evaluate = model_of(case, "causal").law.evaluator()
    gradient = evaluate(case.reward)[1].copy()
    numeric = finite_difference(lambda table: evaluate(table)[0], case.reward)
    np.testing.assert_allclose(gradient, numeric, atol=1e-7)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("deterministic", [False, True])
def test_probabilities_of_all_trajectories_sum_to_one(form, deterministic):
    """Each likelihood, with its base measure, is a law over full trajectories."""
    case = tiny_case(3, deterministic=deterministic)
    full = [(0, s, a, None) for s, a in all_futures(case, 0)]
    start = 1 if form == "conditional" else None
    possible = [
        path
        for path in full
        if energy_weight(case, 0, path[1], path[2]) > 0 and (start is None or path[1][0] == start)
    ]
    everyone = case._replace(paths=possible, panel=as_panel(possible, case.game))
    flow = np.full((case.game.horizon, case.game.n_states), 1 / case.game.n_states)
    options = {} if form == "causal" else {"likelihood": "energy", "start": form}
    model = mfg.TrajectoryModel(
        case.game, table_program(case.reward), everyone.panel, mean_field=flow, **options
    )
    tables = model.law.table_arrays(case.reward)
    logs = add_up(model.law.terms(everyone.panel), tables, len(possible))
    total = 0.0
    for (_, states, actions, _), log in zip(possible, logs, strict=True):
        base = 1.0 if form == "conditional" else float(case.game.initial[states[0]])
        for k in range(len(states) - 1):
            base *= case.transition[k, states[k], actions[k], states[k + 1]]
        total += base * np.exp(log)
    assert total == pytest.approx(1.0, abs=ROUNDING)


@pytest.mark.parametrize("seed", range(5))
def test_both_laws_agree_where_dynamics_are_deterministic_given_the_start(seed):
    """Conditional on the start, deterministic dynamics make the energy law exact."""
    case = tiny_case(seed, deterministic=True)
    conditional = model_of(case, "conditional").law.evaluator()(case.reward)[0]
    causal = model_of(case, "causal").law.evaluator()(case.reward)[0]
    assert conditional == pytest.approx(causal, abs=ROUNDING)


def test_the_two_laws_differ_under_stochastic_dynamics():
    """With stochastic dynamics the energy form is another model."""
    case = tiny_case(0)
    conditional = model_of(case, "conditional").law.evaluator()(case.reward)[0]
    causal = model_of(case, "causal").law.evaluator()(case.reward)[0]
    assert abs(conditional - causal) > 0.01


@pytest.mark.parametrize("seed", range(5))
def test_potential_shaping_leaves_the_causal_likelihood(seed):
    """Adding `v_t(s) - discount * E v_{t+1}` changes nothing."""
    case = tiny_case(seed, discount=0.8, by_time=True)
    evaluate = model_of(case, "causal").law.evaluator()
    rng = np.random.default_rng(seed)
    T, S, _ = case.game.shape
    potential = np.vstack([rng.normal(size=(T, S)), np.zeros((1, S))])
    ahead = np.zeros((T, S, case.game.n_actions))
    ahead[:-1] = np.einsum("tsax,tx->tsa", case.transition, potential[1:T])
    shaped = case.reward + potential[:T, :, None] - 0.8 * ahead
    assert evaluate(shaped)[0] == pytest.approx(evaluate(case.reward)[0], abs=ROUNDING)


@pytest.mark.parametrize("form", FORMS)
def test_relabelling_states_and_actions_changes_nothing(form):
    """A permutation of labels in the game, with the reward alike, leaves the likelihood."""
    case = tiny_case(2)
    T, S, A = case.game.shape
    states, actions = np.random.default_rng(0).permutation(S), np.arange(A)[::-1]
    table = case.transition[0][states][:, actions][:, :, states]
    game = mfg.MeanFieldGame(
        states=[case.game.space.labels[s] for s in states],
        actions=[case.game.actions[a] for a in actions],
        horizon=T,
        transition=table,
        initial=case.game.initial.numpy()[states],
    )
    moved = case._replace(game=game, reward=case.reward[:, states][:, :, actions].copy())
    before = model_of(case, form).law.evaluator()(case.reward)[0]
    after = model_of(moved, form).law.evaluator()(moved.reward)[0]
    assert after == pytest.approx(before, abs=ROUNDING)


def test_policy_of_the_kernel_is_the_recursion():
    """The log policy by kernel equals the recursion over futures, state by state."""
    case = tiny_case(7, masked=True, temperature=0.5)
    model = model_of(case, "causal")
    log_policy = model.law.log_policy(masked_reward(model, case.reward))
    for t, s in itertools.product(range(case.game.horizon), range(case.game.n_states)):
        for a, share in soft_policy(case, t, s).items():
            assert np.exp(log_policy[t, s, a]) == pytest.approx(share, abs=ROUNDING)


@pytest.mark.parametrize("form", FORMS)
def test_extreme_rewards_stay_finite(form):
    """Rewards of a thousand temperatures neither overflow nor lose the gradient."""
    case = tiny_case(1)
    model = model_of(case, form)
    value, gradient = model.law.evaluator()(1000.0 * case.reward)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()
