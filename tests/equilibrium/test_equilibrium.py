"""Forward solvers: soft control, propagation, equilibria, simulated panels."""

import numpy as np
import pytest
import torch
from games import (
    ROADS_TRUTH,
    ROUNDING,
    STANDARD_ERRORS,
    avoid_crowds,
    epidemic,
    fear,
    lone,
    random_rows,
    shop,
    two_roads,
)

import mfgppl as mfg
from mfgppl.reward.program import bind, reward_table

T, S, A = 5, 3, 2
CASES = [(1.0, 1.0), (0.9, 1.0), (0.8, 0.3), (1.0, 5.0)]
STEPS = [None, T - 1]  # one transition, or one a step


def random_reward(seed: int = 3) -> np.ndarray:
    """Return a reward table of moderate size."""
    return np.random.default_rng(seed).normal(size=(T, S, A))


def random_transition(steps: int | None) -> np.ndarray:
    """Return one table (S, A, S), or one a step."""
    return random_rows(4, S, A, S) if steps is None else random_rows(4, steps, S, A, S)


def by_hand(
    reward: np.ndarray, transition: np.ndarray, discount: float, temperature: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return Q, V and the policy by loops over time, state, action and next state."""
    horizon, n_states, n_actions = reward.shape
    q, v, policy = np.zeros(reward.shape), np.zeros((horizon + 1, n_states)), np.zeros(reward.shape)
    for t in reversed(range(horizon)):
        for s in range(n_states):
            for a in range(n_actions):
                q[t, s, a] = reward[t, s, a]
                if t < horizon - 1:
                    row = transition[s, a] if transition.ndim == 3 else transition[t, s, a]
                    for x in range(n_states):
                        q[t, s, a] += discount * row[x] * v[t + 1, x]
            weights = [np.exp(q[t, s, a] / temperature) for a in range(n_actions)]
            v[t, s] = temperature * np.log(sum(weights))
            policy[t, s] = np.array(weights) / sum(weights)
    return q, v[:-1], policy


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize(("discount", "temperature"), CASES)
def test_soft_backward_induction_is_the_recursion(steps, discount, temperature):
    """Values and policy equal loops over all indices."""
    reward, transition = random_reward(), random_transition(steps)
    q, v, policy = by_hand(reward, transition, discount, temperature)
    found = mfg.equilibrium.soft_backward_induction(
        torch.as_tensor(reward),
        torch.as_tensor(transition),
        discount=discount,
        temperature=temperature,
    )
    np.testing.assert_allclose(found.q_values, q, atol=ROUNDING)
    np.testing.assert_allclose(found.soft_values, v, atol=ROUNDING)
    np.testing.assert_allclose(found.log_policy.exp(), policy, atol=ROUNDING)
    np.testing.assert_allclose(found.log_policy.exp().sum(-1), 1.0, atol=ROUNDING)


@pytest.mark.parametrize("steps", STEPS)
def test_no_reward_gives_the_uniform_policy(steps):
    """Where nothing is to be had all actions are as likely, and the value is entropy alone."""
    found = mfg.equilibrium.soft_backward_induction(
        torch.zeros(T, S, A, dtype=torch.float64),
        torch.as_tensor(random_transition(steps)),
        temperature=2.0,
    )
    np.testing.assert_allclose(found.log_policy.exp(), 1 / A, atol=ROUNDING)
    entropy = 2.0 * np.log(A) * np.arange(T, 0, -1)
    np.testing.assert_allclose(found.soft_values, entropy[:, None].repeat(S, 1), atol=ROUNDING)


@pytest.mark.parametrize(("discount", "temperature"), CASES)
def test_a_constant_in_the_reward_leaves_the_policy(discount, temperature):
    """A number added everywhere, also one that changes with time, changes no choice."""
    transition = torch.as_tensor(random_transition(None))
    reward = torch.as_tensor(random_reward())
    shift = torch.arange(T, dtype=torch.float64)[:, None, None] - 7.0
    constants = {"discount": discount, "temperature": temperature}
    plain = mfg.equilibrium.soft_backward_induction(reward, transition, **constants)
    moved = mfg.equilibrium.soft_backward_induction(reward + shift, transition, **constants)
    torch.testing.assert_close(moved.log_policy, plain.log_policy, atol=ROUNDING, rtol=0)


@pytest.mark.parametrize(("discount", "temperature"), CASES)
def test_potential_shaping_leaves_the_policy(discount, temperature):
    """`r + v_t(s) - discount P_t v_{t+1}` with `v_T = 0` makes the same choices as `r`."""
    transition, reward = random_transition(None), random_reward()
    potential = np.random.default_rng(9).normal(size=(T + 1, S))
    potential[T] = 0.0
    shaped = reward + potential[:-1, :, None]
    for t in range(T):
        shaped[t] -= discount * transition @ potential[t + 1]
    # the last step has no next state, so its potential is free
    constants = {"discount": discount, "temperature": temperature}
    table = torch.as_tensor(transition)
    plain = mfg.equilibrium.soft_backward_induction(torch.as_tensor(reward), table, **constants)
    other = mfg.equilibrium.soft_backward_induction(torch.as_tensor(shaped), table, **constants)
    torch.testing.assert_close(other.log_policy, plain.log_policy, atol=ROUNDING, rtol=0)


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize(("discount", "temperature"), CASES)
def test_gradient_of_the_initial_value_is_the_occupancy(steps, discount, temperature):
    """The value of the start moves with the reward as often as it is met, discounted."""
    reward = torch.as_tensor(random_reward()).requires_grad_()
    transition = torch.as_tensor(random_transition(steps))
    initial = torch.as_tensor(random_rows(6, S))
    found = mfg.equilibrium.soft_backward_induction(
        reward, transition, discount=discount, temperature=temperature
    )
    (initial @ found.soft_values[0]).backward()
    policy = found.log_policy.detach().exp()
    flow = mfg.equilibrium.propagate_mean_field(policy, transition, initial)
    weight = discount ** torch.arange(T, dtype=torch.float64)
    occupancy = weight[:, None, None] * flow[:, :, None] * policy
    torch.testing.assert_close(reward.grad, occupancy, atol=ROUNDING, rtol=0)


def test_an_action_that_is_not_available_is_never_taken():
    """A reward of -inf has probability 0 and leaves the others summing to 1."""
    reward = torch.as_tensor(random_reward())
    reward[:, 1, 0] = -torch.inf
    found = mfg.equilibrium.soft_backward_induction(
        reward, torch.as_tensor(random_transition(None))
    )
    policy = found.log_policy.exp()
    assert float(policy[:, 1, 0].max()) == 0.0
    np.testing.assert_allclose(policy.sum(-1), 1.0, atol=ROUNDING)


def test_large_rewards_do_not_overflow():
    """At low temperature the policy is the greedy one, without NaN."""
    reward = 1e4 * torch.as_tensor(random_reward())
    found = mfg.equilibrium.soft_backward_induction(
        reward, torch.as_tensor(random_transition(None)), temperature=1e-2
    )
    assert bool(torch.isfinite(found.soft_values).all())
    greedy = found.q_values.argmax(-1)
    taken = found.log_policy.exp().gather(-1, greedy[..., None])
    np.testing.assert_allclose(taken, 1.0, atol=ROUNDING)


@pytest.mark.parametrize("steps", STEPS)
def test_propagation_is_a_sum_over_all_ways_and_keeps_mass(steps):
    """Each step's shares equal a loop over state, action and next state, and sum to 1."""
    policy, transition = random_rows(7, T, S, A), random_transition(steps)
    initial = random_rows(8, S)
    flow = np.zeros((T, S))
    flow[0] = initial
    for t in range(T - 1):
        for s in range(S):
            for a in range(A):
                row = transition[s, a] if steps is None else transition[t, s, a]
                for x in range(S):
                    flow[t + 1, x] += flow[t, s] * policy[t, s, a] * row[x]
    found = mfg.equilibrium.propagate_mean_field(
        torch.as_tensor(policy), torch.as_tensor(transition), torch.as_tensor(initial)
    )
    np.testing.assert_allclose(found, flow, atol=ROUNDING)
    np.testing.assert_allclose(found.sum(1), 1.0, atol=ROUNDING)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda r, p: mfg.equilibrium.soft_backward_induction(r[0], p), r"\(T, S, A\)"),
        (
            lambda r, p: mfg.equilibrium.soft_backward_induction(r, p[:, :1]),
            r"`transition`.*\(3, 2, 3\)",
        ),
        (
            lambda r, p: mfg.equilibrium.soft_backward_induction(r, p[None].repeat(3, 1, 1, 1)),
            "T-1 = 4",
        ),
        (
            lambda r, p: mfg.equilibrium.soft_backward_induction(r, p, temperature=0.0),
            "temperature",
        ),
        (lambda r, p: mfg.equilibrium.soft_backward_induction(r, p, discount=1.5), "discount"),
        (
            lambda r, p: mfg.equilibrium.propagate_mean_field(r.softmax(-1), p, torch.ones(2) / 2),
            "initial",
        ),
        (
            lambda r, p: mfg.equilibrium.propagate_mean_field(r[:, :, :1], p, torch.ones(3) / 3),
            "policy",
        ),
    ],
    ids=["reward", "transition", "steps", "temperature", "discount", "initial", "policy"],
)
def test_arguments_that_do_not_fit_are_refused(call, words):
    """Wrong shapes and constants raise a ValueError that names the argument."""
    with pytest.raises(ValueError, match=words):
        call(torch.as_tensor(random_reward()), torch.as_tensor(random_transition(None)))


GAMES = {
    "two_roads": (two_roads(), avoid_crowds, ROADS_TRUTH),
    "epidemic": (epidemic(discount=0.95), fear, {"illness": 2.0, "distance": 0.3}),
    "cold roads": (two_roads(temperature=0.5), avoid_crowds, {"crowding": 0.7, "effort": 0.1}),
}


@pytest.mark.parametrize("name", GAMES)
def test_an_equilibrium_reproduces_itself(name):
    """The policy is the soft best response to the flow, and generates it."""
    game, reward, parameters = GAMES[name]
    solution = mfg.solve_equilibrium(game, reward, parameters=parameters)
    found = solution.value
    assert solution.converged
    assert solution.residual <= 1e-10
    inputs = mfg.RewardInputs(game, found.mean_field)
    table = reward_table(bind(reward, parameters), inputs)
    transition = game.transition_along(found.mean_field)
    tables = transition.numpy()
    tables = tables[0] if len(tables) == 1 else tables
    _, values, policy = by_hand(table.numpy(), tables, game.discount, game.temperature)
    np.testing.assert_allclose(found.policy, policy, atol=1e-9)
    np.testing.assert_allclose(found.soft_values, values, atol=1e-9)
    torch.testing.assert_close(found.reward, table)
    flow = mfg.equilibrium.propagate_mean_field(found.policy, transition, game.initial)
    # ten times the solver's tolerance
    np.testing.assert_allclose(flow, found.mean_field, atol=1e-9)


def test_without_coupling_the_first_response_is_the_equilibrium():
    """Where the crowd does not matter the flow is that of the single-agent policy."""
    game = two_roads()
    parameters = {"crowding": 0.0, "effort": 1.0}
    found = mfg.solve_equilibrium(game, avoid_crowds, parameters=parameters).value
    # turning costs 1 on both roads, so the value is the same on both and turns are coin flips
    turn = np.exp(-1.0) / (1 + np.exp(-1.0))
    np.testing.assert_allclose(found.policy[:, :, 1], turn, atol=ROUNDING)
    left = 0.8
    for t in range(4):
        assert float(found.mean_field[t, 0]) == pytest.approx(left, abs=1e-9)
        left = left * (1 - turn) + (1 - left) * turn


def test_an_action_that_is_not_available_is_not_played():
    """Drivers who cannot turn stay where they start."""
    game = two_roads(available=[[1, 0], [1, 0]])
    found = mfg.solve_equilibrium(game, avoid_crowds, parameters=ROADS_TRUTH).value
    np.testing.assert_allclose(found.mean_field, [[0.8, 0.2]] * 4, atol=ROUNDING)


def test_the_equilibrium_of_one_state_is_there_at_once():
    """Size 1: everybody is in the one state and takes the one action."""
    solution = mfg.solve_equilibrium(lone(), lambda x: x.density, parameters={})
    assert (solution.converged, solution.n_steps) == (True, 1)
    assert solution.value.policy.tolist() == [[[1.0]]]


def test_too_few_steps_are_reported():
    """Without convergence the solution says so, with its residual and a reason."""
    solution = mfg.solve_equilibrium(two_roads(), avoid_crowds, parameters=ROADS_TRUTH, max_steps=2)
    assert not solution.converged
    assert solution.n_steps == 2
    assert solution.residual > 1e-10
    assert "after 2 steps" in solution.reason


def test_throw_raises_the_reason():
    """`throw=True` turns a failure into an error with the same reason and a remedy."""
    arguments = {"parameters": ROADS_TRUTH, "max_steps": 2}
    reason = mfg.solve_equilibrium(two_roads(), avoid_crowds, **arguments).reason
    with pytest.raises(mfg.exceptions.ConvergenceError, match="max_steps") as caught:
        mfg.solve_equilibrium(two_roads(), avoid_crowds, throw=True, **arguments)
    assert reason in str(caught.value)


def test_the_start_does_not_change_a_unique_equilibrium():
    """Two starting flows lead to the same place."""
    start = torch.tensor([[0.1, 0.9]] * 4, dtype=torch.float64)
    arguments = {"parameters": ROADS_TRUTH}
    one = mfg.solve_equilibrium(two_roads(), avoid_crowds, **arguments)
    other = mfg.solve_equilibrium(two_roads(), avoid_crowds, mean_field=start, **arguments)
    torch.testing.assert_close(one.value.mean_field, other.value.mean_field, atol=1e-8, rtol=0)


@pytest.mark.parametrize("name", GAMES)
def test_simulated_frequencies_are_the_flow_and_the_policy(name):
    """Shares of states and actions lie within five standard errors of what they are drawn from."""
    game, reward, parameters = GAMES[name]
    found = mfg.solve_equilibrium(game, reward, parameters=parameters).value
    n = 4000
    panel = mfg.simulate(game, found.policy, found.mean_field, n_agents=n, random_seed=11)
    flow = found.mean_field.numpy()
    slack = STANDARD_ERRORS * np.sqrt(flow * (1 - flow) / n) + ROUNDING
    assert (np.abs(panel.mean_field() - flow) <= slack).all()
    occupancy = flow[:, :, None] * found.policy.numpy()
    slack = STANDARD_ERRORS * np.sqrt(occupancy * (1 - occupancy) / n) + ROUNDING
    assert (np.abs(panel.counts.actions / n - occupancy) <= slack).all()


def test_simulated_steps_follow_the_transition():
    """Observed next states occur as often as the dynamics say, within five standard errors."""
    game = shop()
    policy = torch.full(game.shape, 0.25, dtype=torch.float64)
    flow = game.initial.repeat(game.horizon, 1)
    panel = mfg.simulate(game, policy, flow, n_agents=3000, random_seed=5)
    estimate = panel.estimate_transition()
    expected = game.transition.numpy()
    visits = estimate.counts.values.sum(-1, keepdims=True)
    slack = STANDARD_ERRORS * np.sqrt(expected * (1 - expected) / visits)
    assert visits.min() > 100
    assert (np.abs(estimate.probabilities.values - expected) <= slack).all()


def test_a_simulated_panel_is_balanced_and_ends_at_the_horizon():
    """Each agent takes T decisions from the first time on; no end is early."""
    game = two_roads()
    policy = torch.full(game.shape, 0.5, dtype=torch.float64)
    flow = game.initial.repeat(4, 1)
    panel = mfg.simulate(game, policy, flow, n_agents=7, random_seed=1)
    assert (panel.n_trajectories, panel.n_decisions, panel.horizon) == (7, 28, 4)
    assert panel.counts.starts[0].sum() == 7
    assert panel.counts.ends_seen.sum() + panel.counts.ends_unseen.sum() == 0


def test_the_seed_decides_the_panel():
    """The same seed gives the same rows, another seed others."""
    game = two_roads()
    policy = torch.full(game.shape, 0.5, dtype=torch.float64)
    flow = game.initial.repeat(4, 1)
    panels = [mfg.simulate(game, policy, flow, n_agents=50, random_seed=seed) for seed in (3, 3, 4)]
    np.testing.assert_array_equal(panels[0].action, panels[1].action)
    np.testing.assert_array_equal(panels[0].state, panels[1].state)
    assert (panels[0].action != panels[2].action).any()
