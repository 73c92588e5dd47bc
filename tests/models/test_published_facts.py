"""Facts about single games that come from their papers or from paper and pencil."""

import numpy as np
import pytest
import scipy.optimize
import torch

import mfgppl as mfg
from mfgppl.models import (
    beach_bar,
    building_evacuation,
    capacity,
    crowd_motion,
    equilibrium_price,
    four_rooms,
    invest,
    lasry_lions,
    left_right,
    linear_quadratic,
    malware,
    multiple_equilibria,
    predator_prey,
    random_game,
    rock_paper_scissors,
    sir,
    sis,
    stationary_repair,
    traffic_routing,
    treasure_hunting,
)
from mfgppl.reward.program import bind, reward_table

SOLVER = 1e-9  # ten times the tolerance of an equilibrium
ROUNDING = 1e-12


def equilibrium(file, game=None, **options):
    """Return the equilibrium of a file's game at the truth."""
    game = file.game() if game is None else game
    return mfg.solve_equilibrium(
        game, file.reward, parameters=file.TRUTH, throw=True, **options
    ).value


def rewards(file, flow, parameters=None, game=None):
    """Return the reward table of a file's game along a flow, by default at the truth."""
    game = file.game() if game is None else game
    flow = torch.as_tensor(np.asarray(flow, dtype=float))
    program = bind(file.reward, file.TRUTH if parameters is None else parameters)
    return reward_table(program, mfg.RewardInputs(game, flow)).numpy()


def everybody_at(game, state):
    """Return the flow of a crowd that is in one state at all times."""
    return torch.eye(game.n_states, dtype=torch.float64)[state].repeat(game.horizon, 1)


def everywhere(game):
    """Return the flow of a crowd that is spread evenly at all times."""
    shape = game.flow_shape
    return torch.full(shape, 1.0 / np.prod(shape[1:]), dtype=torch.float64)


def table(game, flow=None, time=0):
    """Return one step's transition (S, A, S) along a flow, by default an even one."""
    tables = game.transition_along(everywhere(game) if flow is None else flow)
    return (tables[time] if len(tables) > 1 else tables[0]).to_dense().numpy()


def test_invest_reaches_all_better_levels_or_their_lower_half():
    """From level 7 an investment reaches 7, 8, 9 alike while the mean is below 4, and else 7 with
    probability 2/3 and 8 with 1/3; from level 6, with four levels left, the lower two alike.
    """
    game, changed = invest.game(), invest.game(changed=True)
    low, middle, high = (everybody_at(game, level) for level in (3, 4, 5))
    even, odd = [0.25] * 4, [1 / 3] * 3
    np.testing.assert_allclose(table(game, low)[7, 1, 7:], odd, atol=ROUNDING)
    np.testing.assert_allclose(table(game, low)[6, 1, 6:], even, atol=ROUNDING)
    np.testing.assert_allclose(table(game, middle)[7, 1, 7:], [2 / 3, 1 / 3, 0], atol=ROUNDING)
    np.testing.assert_allclose(table(game, middle)[6, 1, 6:], [0.5, 0.5, 0, 0], atol=ROUNDING)
    np.testing.assert_allclose(table(changed, middle)[7, 1, 7:], odd, atol=ROUNDING)
    np.testing.assert_allclose(table(changed, high)[6, 1, 6:], [0.5, 0.5, 0, 0], atol=ROUNDING)
    np.testing.assert_array_equal(table(game, low)[:, 0], np.eye(10))
    # level 8 in a crowd at level 5: 0.3 * 0.8 - 0.2 * 5 - 0.2
    assert rewards(invest, high)[0, 8, 1] == pytest.approx(-0.96, abs=ROUNDING)


def test_malware_rises_to_the_top_or_to_the_middle():
    """From level 5, unrepaired, the levels 5 .. 9 are alike, or after the change 0.4, 0.4, 0.2."""
    usual, changed = table(malware.game()), table(malware.game(changed=True))
    np.testing.assert_allclose(usual[5, 0, 5:], 0.2, atol=ROUNDING)
    np.testing.assert_allclose(changed[5, 0, 5:], [0.4, 0.4, 0.2, 0, 0], atol=ROUNDING)
    assert (usual[:, 1, 0] == 1).all()
    # level 5 in a crowd at level 3: (0.2 + 0.3) * 0.5 + 0.5
    along = everybody_at(malware.game(), 3)
    assert rewards(malware, along)[0, 5, 1] == pytest.approx(-0.75, abs=ROUNDING)


def test_sis_infects_by_the_share_of_the_infected():
    """With six in ten infected, going out infects with 0.81 * 0.6; after the change 0.64 * 0.6."""
    game, changed = sis.game(), sis.game(changed=True)
    flow = torch.tensor([[0.4, 0.6]], dtype=torch.float64).repeat(50, 1)
    assert game.horizon == 50
    for played, caught, healed in ((game, 0.486, 0.3), (changed, 0.384, 0.2)):
        rows = table(played, flow)
        np.testing.assert_allclose(rows[0], [[1 - caught, caught], [1, 0]], atol=ROUNDING)
        np.testing.assert_allclose(rows[1], [[healed, 1 - healed]] * 2, atol=ROUNDING)
    np.testing.assert_allclose(rewards(sis, flow)[0], [[0, -0.5], [-1, -1.5]], atol=ROUNDING)


@pytest.mark.parametrize(("changed", "meant"), [(False, 1.0), (True, 0.9)])
def test_left_right_splits_by_its_logit(changed, meant):
    """With share p on the left, going left is worth (2 meant - 1) (2 (1 - p) - p) more."""

    def gap(chosen):
        left = meant * chosen + (1 - meant) * (1 - chosen)
        return np.log(chosen / (1 - chosen)) - (2 * meant - 1) * (2 * (1 - left) - left)

    chosen = scipy.optimize.brentq(gap, 1e-6, 1 - 1e-6, xtol=1e-14)
    world = equilibrium(left_right, left_right.game(changed=changed))
    assert float(world.policy[0, 0, 0]) == pytest.approx(chosen, abs=SOLVER)
    left = meant * chosen + (1 - meant) * (1 - chosen)
    np.testing.assert_allclose(world.mean_field[1], [0, left, 1 - left], atol=SOLVER)


def test_rock_paper_scissors_mixes_by_its_logit():
    """The crowd's mixture is the softmax of what it pays, at every time after the start."""

    def pays(mix):
        rock, paper, scissors = mix
        return np.array([2 * scissors - paper, 4 * rock - 2 * scissors, 6 * paper - 3 * rock])

    def gap(free):
        mix = np.array([free[0], free[1], 1 - free.sum()])
        weights = np.exp(pays(mix))
        return (mix - weights / weights.sum())[:2]

    free = scipy.optimize.fsolve(gap, [1 / 3, 1 / 3], xtol=1e-12)
    mix = [0, *free, 1 - free.sum()]
    flow = equilibrium(rock_paper_scissors).mean_field
    np.testing.assert_allclose(flow[1:], [mix] * (len(flow) - 1), atol=SOLVER)


def test_rock_paper_scissors_pays_alike_in_its_nash_equilibrium():
    """At the shares 26, 20, 31 of 77 each hand is paid 42/77."""
    game = rock_paper_scissors.game()
    flow = torch.tensor([[0, 26, 20, 31]], dtype=torch.float64).repeat(game.horizon, 1) / 77
    np.testing.assert_allclose(rewards(rock_paper_scissors, flow)[:, 1:], 42 / 77, atol=ROUNDING)
    shown = table(rock_paper_scissors.game(changed=True))
    np.testing.assert_allclose(shown[2, 0], [0, 0.8, 0.1, 0.1], atol=ROUNDING)


def test_beach_bar_walks_with_the_wind():
    """A walker goes where it means to half of the time, a place further or nearer else; the ends
    hold. At an even crowd only the way, the walk and one common term remain.
    """
    rows = table(beach_bar.game())
    np.testing.assert_allclose(rows[5, 1, 4:7], [0.25, 0.5, 0.25], atol=ROUNDING)
    np.testing.assert_allclose(rows[5, 2, 5:8], [0.25, 0.5, 0.25], atol=ROUNDING)
    assert rows[0, 0, 0] == pytest.approx(1.0, abs=ROUNDING)
    np.testing.assert_allclose(rows[0, 1, :2], [0.75, 0.25], atol=ROUNDING)
    paid = rewards(beach_bar, everywhere(beach_bar.game()))
    assert paid[0, 2, 0] - paid[0, 8, 1] == pytest.approx(-35 / 12, abs=ROUNDING)
    assert paid[0, 8, 1] == pytest.approx(-np.log(1 / 12 + 0.001), abs=ROUNDING)


def test_crowd_motion_pushes_to_the_neighbours():
    """In a corner the walls hold all pushes but one; the way to the first point is four steps."""
    game = crowd_motion.game()
    rows = table(game)
    up = rows[0, game.actions.index("up")]
    assert up[0] == pytest.approx(0.875, abs=ROUNDING)
    assert up[1] == pytest.approx(0.125, abs=ROUNDING)
    middle = rows[55, game.actions.index("right")]  # row 5, column 5
    np.testing.assert_allclose(middle[[56, 46, 66, 55, 57]], [0.5] + [0.125] * 4, atol=ROUNDING)
    away = crowd_motion.way()
    assert away[0, 0, 0] == 4
    assert away[3, 2, 2] == away[4, 2, 7] == away[19, 7, 2] == 0
    assert away[4, 9, 0] == 14


def steps_from(rows, start):
    """Return the fewest steps from a state to each state, whatever the actions."""
    near, steps = rows.max(1) > 0, np.full(len(rows), -1)
    frontier, step = {start}, 0
    while frontier:
        for state in frontier:
            steps[state] = step
        after = {int(x) for state in frontier for x in np.flatnonzero(near[state])}
        frontier, step = {x for x in after if steps[x] < 0}, step + 1
    return steps


def test_four_rooms_has_104_cells_and_the_crowd_needs_20_steps():
    """The house of Sutton, Precup and Singh has 104 open cells, four rooms of 25, 30, 20 and 25
    cells and four doors; opposite corners are twenty steps apart and the flow gets there then.
    """
    game = four_rooms.game()
    assert game.n_states == 104
    steps = steps_from(table(game), 0)
    assert steps.max() == steps[103] == 20
    flow = equilibrium(four_rooms).mean_field
    np.testing.assert_array_equal(flow.numpy() > 0, np.arange(25)[:, None] >= steps)


def test_linear_quadratic_moves_by_drift_push_and_noise():
    """From 1 in a crowd around 0, a push of 1 leads to 1 - 0.2 + 1 = 1.8 and noise of -1, 0 or 1:
    four fifths of each lump at the nearer grid point. The last reward is the gap's alone.
    """
    game = linear_quadratic.game()
    flow = everybody_at(game, 5)  # position 0
    row = table(game, flow)[6, 3]
    np.testing.assert_allclose(row[5:9], [0.05, 0.3, 0.45, 0.2], atol=ROUNDING)
    paid = rewards(linear_quadratic, flow)
    # position 2, push -1: -1/2 + 0.1 (-1) (-2) - 0.5 * 4 / 2
    assert paid[0, 7, 1] == pytest.approx(-1.3, abs=ROUNDING)
    np.testing.assert_allclose(paid[-1, 7], -2.0, atol=ROUNDING)


def test_a_building_is_left_by_crossing_each_floor():
    """From the far end of the top floor, the ground floor is ten steps across, one down, ten
    across and one down away; nobody leaves sooner.
    """
    game = building_evacuation.game()
    steps = steps_from(table(game), 107)  # floor 2, row 5, column 5
    assert steps[:36].min() == 22
    start = torch.eye(108, dtype=torch.float64)[107]
    uniform = torch.full(game.shape, 1 / 7, dtype=torch.float64)
    flow = mfg.equilibrium.propagate_mean_field(uniform, game.transition, start)
    first = int(np.flatnonzero(flow[:, :36].sum(1))[0])
    assert first == 22


def test_supply_makes_the_price():
    """If a third of the plans makes 0, 1 and 2 each, supply is 1 and the price 4 / (1 + 1) = 2; an
    empty firm that makes 2 and orders 1 then loses 1.7.
    """
    game = equilibrium_price.game()
    plan = game.actions.index("make 2, order 1")
    paid = rewards(equilibrium_price, everywhere(game))
    # (2 - 1) 2 - 0.3 * 4 - 0.5 * 1 - (0.5 + 0.5) 2
    assert paid[0, 0, plan] == pytest.approx(-1.7, abs=ROUNDING)
    assert paid[0, 3, plan] == pytest.approx(-1.7 + 2.0 - 0.6, abs=ROUNDING)
    assert table(game)[1, plan, 1] == 1
    assert table(game)[3, game.actions.index("make 0, order 2"), 3] == 1


def test_treasure_is_lifted_by_all_or_by_none():
    """Where all dig for gold, gold pays in full, silver nothing, and a journey from the silver is a
    lottery: `|L - e_ss|^2` is 0 at the gold and 2 at the silver.
    """
    game = treasure_hunting.game()
    flow = torch.zeros(game.flow_shape, dtype=torch.float64)
    flow[:, 0, 0] = 1.0
    paid = rewards(treasure_hunting, flow)
    np.testing.assert_allclose(paid[1], np.diag([2.0, 0, 0]), atol=ROUNDING)
    assert (paid[0] == 0).all()
    np.testing.assert_array_equal(table(game, flow, 0)[1], np.eye(3))
    later = table(game, flow, 1)
    np.testing.assert_allclose(later[0], np.eye(3), atol=ROUNDING)
    np.testing.assert_allclose(later[1, 2], [2 / 7, 2 / 7, 3 / 7], atol=ROUNDING)


def test_a_monotone_reward_has_one_equilibrium():
    """Lasry and Lions: over any two crowds the reward falls where the crowd grows, and three starts
    of the solver lead to the same flow.
    """
    game, rng = lasry_lions.game(), np.random.default_rng(1)
    crowds = rng.dirichlet(np.ones(8), size=(2, 20))
    first, second = (rewards(lasry_lions, c)[:, :, 1] for c in crowds)
    gaps = ((crowds[0] - crowds[1]) * (first - second)).sum(1)
    np.testing.assert_allclose(gaps, -4 * ((crowds[0] - crowds[1]) ** 2).sum(1), atol=ROUNDING)
    flows = [
        equilibrium(lasry_lions, mean_field=start).mean_field
        for start in (everybody_at(game, 0), everybody_at(game, 3), everywhere(game))
    ]
    for flow in flows[1:]:
        np.testing.assert_allclose(flow, flows[0], atol=SOLVER)


def test_company_makes_two_equilibria():
    """Of two flows at which a crowd settles, one has nearly all at the first standard after some
    steps and one nearly all at the second; both reproduce themselves.
    """
    game = multiple_equilibria.game()
    first, second = (
        equilibrium(multiple_equilibria, mean_field=everybody_at(game, k)) for k in range(2)
    )
    assert float(first.mean_field[10, 0]) > 0.9
    assert float(second.mean_field[10, 1]) > 0.9
    for world in (first, second):
        again = mfg.equilibrium.propagate_mean_field(world.policy, game.transition, game.initial)
        np.testing.assert_allclose(again, world.mean_field, atol=SOLVER)


def test_an_epidemic_passes_and_a_vaccine_is_for_the_susceptible():
    """The susceptible only decrease and the recovered only grow; nobody else takes the vaccine, and
    without one fewer recover unharmed.
    """
    world = equilibrium(sir)
    flow = world.mean_field.numpy()
    assert (np.diff(flow[:, 0]) <= ROUNDING).all()
    assert (np.diff(flow[:, 2]) >= -ROUNDING).all()
    assert (world.policy[:, 1:, 2] == 0).all()
    without = equilibrium(sir, sir.game(vaccine=False))
    assert (without.policy[:, :, 2] == 0).all()
    rows = table(sir.game(), torch.tensor([[0.5, 0.5, 0.0]]).double().repeat(50, 1))
    np.testing.assert_allclose(rows[0, 0], [0.59, 0.41, 0.0], atol=ROUNDING)
    np.testing.assert_allclose(rows[0, 2], [0, 0, 1], atol=ROUNDING)
    np.testing.assert_allclose(rows[1, 1], [0, 0.8, 0.2], atol=ROUNDING)


def test_a_random_game_is_its_seed():
    """The same seed gives the same game, another seed another; without coupling the crowd does not
    move the dynamics.
    """
    one, same, other = (table(random_game.game(seed=k)) for k in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 0.1
    still = random_game.game(n_states=4, coupling=0.0)
    at = [table(still, everybody_at(still, k)) for k in (0, 3)]
    np.testing.assert_array_equal(*at)
    moving = random_game.game(n_states=4)
    at = [table(moving, everybody_at(moving, k)) for k in (0, 3)]
    assert np.abs(at[0] - at[1]).max() > 0.1


def journeys(flow):
    """Return what each way costs the early and the late, by adding up rewards on its roads."""
    paid = rewards(traffic_routing, flow)[:, :, 0]
    place = {road: k for k, road in enumerate(traffic_routing.TURNS)}
    ways = {
        "upper": ["OA", "AD", "AD2"],
        "lower": ["OB", "OB2", "BD"],
        "bridge": ["OA", "AB", "BD"],
    }
    costs = {}
    for way, roads in ways.items():
        steps = [(t, place[road]) for t, road in enumerate(roads, 1)]
        costs[way] = [-sum(paid[t + late, k] for t, k in steps) for late in (0, 1)]
    return costs


def carried(shares):
    """Return the flow when both groups split over upper, lower and bridge by the given shares."""
    place = {road: k for k, road in enumerate(traffic_routing.TURNS)}
    flow = np.zeros(traffic_routing.game().shape[:2])
    ways = (["OA", "AD", "AD2"], ["OB", "OB2", "BD"], ["OA", "AB", "BD"])
    for late, mass in ((0, 2 / 3), (1, 1 / 3)):
        before = ["asleep"] * late + ["home"]
        for share, way in zip(shares, ways, strict=True):
            path = (before + way + ["work"] * 6)[:6]
            for t, road in enumerate(path):
                flow[t, place[road]] += mass * share
    return flow


def test_a_bridge_costs_the_early_and_saves_the_late():
    """Braess: with all on the bridge the early pay 8 and would pay 9 elsewhere, the late 4; with
    none on it the early pay 7 on both roads, the late 6.
    """
    over = journeys(carried([0, 0, 1]))
    np.testing.assert_allclose(over["bridge"], [8, 4], atol=ROUNDING)
    np.testing.assert_allclose(over["upper"], [9, 7], atol=ROUNDING)
    np.testing.assert_allclose(over["lower"], [9, 7], atol=ROUNDING)
    closed = journeys(carried([0.5, 0.5, 0]))
    np.testing.assert_allclose([closed["upper"], closed["lower"]], [[7, 6]] * 2, atol=ROUNDING)
    shut = equilibrium(traffic_routing, traffic_routing.game(bridge=False))
    assert (shut.mean_field[:, list(traffic_routing.TURNS).index("AB")] == 0).all()


def test_species_hunt_in_a_ring_and_never_change():
    """At the start a lion where the dogs are gains 3, where the hares are loses 3, and among its
    own loses 1; each species stays a third of all.
    """
    game = predator_prey.game()
    flow = game.initial.repeat(game.horizon, 1)
    paid = rewards(predator_prey, flow)[0, :, 0].reshape(3, 5, 5)
    own, dogs, hares = (0, 0), (0, 3), (3, 0)
    assert [paid[0][cell] for cell in (own, dogs, hares)] == pytest.approx([-1, 3, -3])
    assert [paid[1][cell] for cell in (own, dogs, hares)] == pytest.approx([-3, -1, 3])
    assert [paid[2][cell] for cell in (own, dogs, hares)] == pytest.approx([3, -3, -1])
    shares = equilibrium(predator_prey).mean_field.reshape(-1, 3, 25).sum(2)
    np.testing.assert_allclose(shares, 1 / 3, atol=SOLVER)


def test_a_settled_crowd_reproduces_itself():
    """In the stationary game, value iteration by hand gives the same soft policy, and the crowd
    that follows it stays as it is.
    """
    game, world = stationary_repair.game(), equilibrium(stationary_repair)
    crowd = world.mean_field[0].numpy()
    level, rows = np.arange(10), table(game, world.mean_field)
    harm = (0.2 + crowd @ level / 10) * level / 10
    paid = -harm[:, None] - np.array([0.0, 0.5])
    values = np.zeros(10)
    for _ in range(400):  # 0.9^400 is below 1e-18
        q = paid + 0.9 * rows @ values
        values = np.logaddexp(q[:, 0], q[:, 1])
    policy = np.exp(q - values[:, None])
    np.testing.assert_allclose(world.policy[0], policy, atol=SOLVER)
    moved = np.einsum("s,sa,sax->x", crowd, policy, rows)
    np.testing.assert_allclose(moved, crowd, atol=SOLVER)


def test_adding_flights_answers_the_share_below_normal():
    """By hand at one week: six terms, of which the coupling alone looks at the crowd."""
    weights = {"cut": -1.0, "raise": -2.0, "level": 0.5, "level2": 0.25, "regular": 3.0}
    weights |= {"raise_x_D": 4.0}
    game = capacity.game()
    crowd = everywhere(game)  # a third is in the two lowest bins
    table = rewards(capacity, crowd, weights, game)[0]
    lowest, normal = 0.5 * -6.9 + 0.25 * 6.9**2, 3.0
    answer = 4.0 * (1 / 3 - capacity.USUAL)
    np.testing.assert_allclose(table[0], [lowest - 1, lowest, lowest - 2 + answer], atol=ROUNDING)
    np.testing.assert_allclose(table[3], [normal - 1, normal, normal - 2 + answer], atol=ROUNDING)


def test_the_usual_share_below_normal_is_that_of_the_panel():
    """The constant of the coupling is the panel's own mean, to its three digits."""
    panel = capacity.panel()
    assert panel.mean_field()[:, :2].sum(1).mean() == pytest.approx(capacity.USUAL, abs=5e-4)
    assert (panel.n_trajectories, panel.n_decisions) == (247, 12_597)
    assert {k: len(set(v)) for k, v in panel.groups.items()} == {
        "carrier": 15, "airport": 3, "dest": 82,
    }  # fmt: skip
