"""Cells that nobody leaves are a game on the product space whose first coordinate never changes."""

import dataclasses
import functools
import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import mfgppl as mfg
from mfgppl._compiler.lowering import lower
from mfgppl._compiler.operations import KNOWN
from mfgppl._compiler.tracing import record
from mfgppl._kernels import bridge, crowd, threads
from mfgppl._kernels.density import Affine, Itself
from mfgppl.control.fixed_flow import occupancy_of
from mfgppl.control.stationary_control import kept_flow, policy_iteration
from mfgppl.control.steps import as_steps
from mfgppl.data.panel import Counts
from mfgppl.data.space import StateSpace
from mfgppl.density.anchor import Counted
from mfgppl.equilibrium.admissible import check_moves
from mfgppl.equilibrium.recording import NOTHING, _pullback, _replay, _slope
from mfgppl.likelihood.causal import CausalLikelihood
from mfgppl.likelihood.coupled import CoupledLikelihood, moves_seen, tables_along
from mfgppl.likelihood.energy import EnergyLikelihood, energy_induction
from mfgppl.likelihood.stationary_games import StationaryLikelihood
from mfgppl.likelihood.terms import move_places

CLOSE = {"rtol": 1e-12, "atol": 1e-12}
T, A = 4, 2
# cells, states of each, tables: one or one a step, shared or of its own
SIZES = [(1, 3), (2, 3), (9, 4), (2, 101), (8, 101)]
CASES = [(C, S, *kind) for C, S in SIZES for kind in itertools.product((1, T - 1), (True, False))]
cases = pytest.mark.parametrize("case", CASES, ids=str)


def by_cell(case, seed=0):
    """A transition (n, C, S, A, S), a view of one cell's where tables are shared."""
    C, S, n, shared = case
    rows = np.random.default_rng(seed).dirichlet(np.ones(S), size=(n, 1 if shared else C, S, A))
    rows[..., 0, -1] = 0.0  # not every move is possible
    rows /= rows.sum(-1, keepdims=True)
    return torch.from_numpy(rows).expand(n, C, S, A, S)


def product(transition):
    """The same on the product space, (n, C * S, A, C * S)."""
    n, C, S, A, _ = transition.shape
    apart = transition[:, :, :, :, None] * torch.eye(C).to(transition)[:, None, None, :, None]
    return apart.reshape(n, C * S, A, C * S)


def some_counts(case, seed=1):
    C, S = case[:2]
    rng = np.random.default_rng(seed)
    actions, unseen = (rng.poisson(2.0, size=(T, C * S, A)).astype(float) for _ in range(2))
    starts, seen = (rng.poisson(2.0, size=(T, C * S)).astype(float) for _ in range(2))
    unseen[-1] = 0.0
    return Counts(actions, starts, seen, unseen)


def some_reward(case, scale=1.0):
    C, S = case[:2]
    return scale * np.random.default_rng(2).standard_normal((T, C * S, A))


def assert_same_law(laws, reward):
    """Value, gradient and policies of two laws, by kernel and in torch."""
    (value, gradient), (other, slope) = (law.evaluator()(reward) for law in laws)
    scale = np.abs(slope).max()
    np.testing.assert_allclose(value, other, rtol=1e-12)
    np.testing.assert_allclose(gradient / scale, slope / scale, **CLOSE)
    leaf = torch.tensor(reward, requires_grad=True)
    twin = laws[0].log_likelihood(leaf)
    np.testing.assert_allclose(twin.item(), value, rtol=1e-12)
    (back,) = torch.autograd.grad(twin, leaf)
    np.testing.assert_allclose(back / scale, gradient / scale, rtol=1e-11, atol=1e-11)
    many = np.stack([reward, -reward, 0.3 * reward])
    np.testing.assert_allclose(*(law.log_policy(many) for law in laws), **CLOSE)


@cases
def test_causal_likelihood(case):
    """Value, gradient and policy are those of the product space."""
    transition = by_cell(case)
    laws = [
        CausalLikelihood(P, some_counts(case), 0.9, 0.7) for P in (transition, product(transition))
    ]
    assert_same_law(laws, some_reward(case))


@cases
@pytest.mark.parametrize("n_groups", [1, 0])
def test_energy_likelihood(case, n_groups):
    """The same of the energy law, with one partition function of all, or one of each state."""
    transition, counts = by_cell(case), some_counts(case)
    entry = np.random.default_rng(3).dirichlet(np.ones(counts.starts.shape[1]), size=T)
    entry[:, 0] = 0.0
    laws = [
        EnergyLikelihood(P, counts, entry, n_groups, 0.7) for P in (transition, product(transition))
    ]
    assert_same_law(laws, some_reward(case))
    for found in zip(*(law.table_arrays(some_reward(case)) for law in laws), strict=True):
        np.testing.assert_allclose(*found, **CLOSE)


@pytest.mark.parametrize("shared", [True, False])
def test_energy_likelihood_where_cells_lie_far_apart(shared):
    """Thousands of nats between cells, and between states of one, lose no digits."""
    case = (3, 4, T - 1, shared)
    transition, counts = by_cell(case), some_counts(case)
    reward = some_reward(case) + 3000.0 * np.arange(12)[None, :, None] ** 2
    entry = np.full((T, 12), 1 / 12)
    laws = [EnergyLikelihood(P, counts, entry, 0, 1.0) for P in (transition, product(transition))]
    (value, gradient), (other, slope) = (law.evaluator()(reward) for law in laws)
    np.testing.assert_allclose(value, other, rtol=1e-11)
    np.testing.assert_allclose(gradient, slope, rtol=1e-9, atol=1e-9)
    log_partition, _ = energy_induction(torch.tensor(reward), transition, temperature=1.0)
    np.testing.assert_allclose(laws[0].table_arrays(reward)[1], log_partition)


@cases
def test_steps(case):
    """Every question to the steps of cells has the product space's answer."""
    transition = by_cell(case)
    steps, other = as_steps(transition, T), as_steps(product(transition), T)
    sparse = as_steps(product(transition).to_sparse(), T)
    C, S = case[:2]
    assert steps.shape == other.shape == (C * S, A, C * S)
    rng = np.random.default_rng(4)
    values, weights = torch.tensor(rng.normal(size=C * S)), torch.tensor(rng.random((C * S, A)))
    moves = torch.tensor(np.stack([rng.integers(k, size=200) for k in (T - 1, C * S, A, C * S)], 1))
    state, action, uniform = (
        rng.integers(C * S, size=300),
        rng.integers(A, size=300),
        rng.random(300),
    )
    for t in range(T - 1):
        for name, given in (
            ("expected", values), ("log_expected", 300 * values), ("pushed", weights),
            ("under", weights),
        ):  # fmt: skip
            found = [getattr(s, name)(t, given) for s in (steps, other, sparse)]
            np.testing.assert_allclose(found[0], found[1], **CLOSE)
            np.testing.assert_allclose(found[0], found[2], **CLOSE)
        drawn = steps.draw(t, state, action, uniform)
        np.testing.assert_array_equal(drawn // S, state // S)
        assert (other.draw(t, state, action, uniform) == drawn).mean() > 0.99  # but for rounding
    np.testing.assert_array_equal(steps.probability(moves), other.probability(moves))
    if C > 1:
        assert float(steps.probability(torch.tensor([[0, 0, 0, S]]))) == 0.0


@cases
def test_slopes_in_tables(case):
    """Autograd through steps gives each block the slope of its entries in the product space."""
    C, S = case[:2]
    weights = torch.tensor(np.random.default_rng(5).random((T, C * S, A)))

    def slope(form):
        blocks = by_cell(case)[:, :1].clone() if case[3] else by_cell(case).clone()
        blocks.requires_grad_(True)
        steps = as_steps(form(blocks.expand(case[2], C, S, A, S)), T)
        flow = occupancy_of(weights / weights.sum(-1, keepdim=True), steps, weights[0, :, 0])
        value = (flow * weights).sum() + steps.log_expected(0, weights[1, :, 0]).sum()
        value = (
            value
            + (steps.under(0, weights[0]) ** 2).sum()
            + steps.expected(0, weights[0, :, 0]).sum()
        )
        return torch.autograd.grad(value, blocks)[0]

    np.testing.assert_allclose(slope(lambda P: P), slope(product), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("shared", [True, False])
def test_stationary_control(shared):
    """Discounted values and the flow that a policy keeps are those of the product space."""
    case = (3, 4, 1, shared)
    transition, reward = by_cell(case), torch.tensor(some_reward(case)[:1])
    found = [
        policy_iteration(reward, as_steps(P, 1), discount=0.9, temperature=0.5)
        for P in (transition, product(transition))
    ]
    np.testing.assert_allclose(found[0].log_policy, found[1].log_policy, rtol=1e-11, atol=1e-11)
    initial = torch.full((12,), 1 / 12, dtype=torch.float64)
    policy = found[0].log_policy.exp()
    flows = [
        kept_flow(policy, as_steps(P, 1), initial=initial)
        for P in (transition, product(transition))
    ]
    np.testing.assert_allclose(*flows, **CLOSE)
    np.testing.assert_allclose(flows[0].reshape(3, 4).sum(1), np.full(3, 1 / 3))
    counts = Counts(*(c[:1] for c in some_counts(case)))
    laws = [StationaryLikelihood(P, counts, 0.9, 0.5) for P in (transition, product(transition))]
    (value, gradient), (other, slope) = (law.evaluator()(reward.numpy()) for law in laws)
    assert value == pytest.approx(other, rel=1e-12)
    np.testing.assert_allclose(gradient, slope, rtol=1e-10, atol=1e-10)


def test_tables_of_shared_cells_are_stored_once():
    """A view of stride zero is one block; cells with tables of their own have one each."""
    shared, own = (
        bridge.tables_of(by_cell((5, 3, 2, True))),
        bridge.tables_of(by_cell((5, 3, 2, False))),
    )
    assert shared.tables.shape == (2, 1, 3, 6)
    np.testing.assert_array_equal(shared.block, np.zeros(5))
    assert own.tables.shape == (2, 5, 3, 6)
    np.testing.assert_array_equal(own.block, np.arange(5))
    alone = bridge.tables_of(by_cell((1, 3, 2, False))[:, 0])
    assert alone.tables.shape == (2, 1, 3, 6)


@pytest.mark.parametrize("shape", [(T - 1, 6, A, 6), (T, 3, 2, A, 2), (2, 2)])
def test_shapes_that_are_no_transition_are_refused(shape):
    """The message shows both forms and what came."""
    with pytest.raises(ValueError, match=r"`transition` must have shape .* by cell"):
        as_steps(torch.zeros(shape), T + 5)


# A crowd that moves rewards and dynamics: `flow` is flat (T * C * S,), `values` one weight.


def blocks_along(case, base, flow, t):
    """Tables (C, S, A, S) or (1, S, A, S) at time t: agents drift to where the crowd is."""
    C, S = case[:2]
    crowd_now = flow.reshape(T, C, S)[t].sum(0)
    k = t if len(base) > 1 else 0
    blocks = base[k][:1] if case[3] else base[k]
    return 0.7 * blocks + 0.3 * crowd_now * crowd_now.sum()


def game_arrays(case, *, moving, on_product):
    """A game's arrays, and the tapes of its slopes and pullbacks."""
    C, S = case[:2]
    base, table = by_cell(case), torch.tensor(some_reward(case))

    def reward(flow, values):
        mine = flow.reshape(T, C * S)
        everywhere = flow.reshape(T, C, S).sum(1)[:, None].expand(T, C, S).reshape(T, C * S)
        return (table - values[0] * (mine + everywhere**2)[:, :, None]).reshape(-1)

    def move(t, flow, values):
        blocks = blocks_along(case, base, flow, t)
        if on_product:
            spread = blocks.expand(C, S, A, S)[:, :, :, None]
            apart = spread * torch.eye(C, dtype=torch.float64)[:, None, None, :, None]
            return apart.reshape(C * S, A, C * S).permute(2, 0, 1).contiguous().reshape(-1)
        return blocks.permute(0, 3, 1, 2).contiguous().reshape(-1)

    def all_moves(flow, values):
        return torch.cat([move(t, flow, values) for t in range(T - 1)])

    steps = [functools.partial(move, t) for t in range(T - 1)] if moving else []
    transition = by_cell(case) if not moving else by_cell((C, S, T - 1, case[3]))
    tables = bridge.tables_of(product(transition) if on_product else transition)
    point, values = (
        torch.full((T * C * S,), 1 / (C * S), dtype=torch.float64),
        torch.tensor([1.5], dtype=torch.float64),
    )
    n_moves = crowd.no_moves(
        crowd.Arrays(tables, NOTHING, _replay(steps, [point, values]), np.zeros(1), 1.0)
    ).size

    def tapes(form, changes):
        inputs = [point, *[c.clone() for c in changes], values]
        return _replay([form(reward)], inputs), _replay([form(m) for m in steps], inputs)

    moves = _replay(steps, [point, values])
    initial = np.random.default_rng(6).dirichlet(np.ones(C * S))
    arrays = crowd.Arrays(tables, _replay([reward], [point, values]), moves, initial, 0.9)
    on_reward, on_tables = (
        torch.zeros(table.numel(), dtype=torch.float64),
        torch.zeros(n_moves, dtype=torch.float64),
    )
    pulls = (
        _replay([_pullback(reward)], [point, on_reward, values]),
        _replay([_pullback(all_moves)] if moving else [], [point, on_tables, values]),
    )
    return arrays, tapes(_slope, [point]), pulls


def imaged(arrays, flow, C, S):
    shape = (T, C * S, A)
    reward, q_values, policy = (np.empty(shape) for _ in range(3))
    values, generated = np.empty(shape[:2]), np.empty(shape[:2])
    crowd.image(arrays, flow, 0.6, reward, q_values, values, policy, generated)
    return values, policy, generated


@pytest.mark.parametrize("moving", [False, True])
@pytest.mark.parametrize("case", [c for c in CASES if c[1] < 10], ids=str)
def test_crowd(case, moving):
    """The image of a flow, its slopes and their adjoint are those of the product space."""
    C, S = case[:2]
    rng = np.random.default_rng(7)
    flow = rng.dirichlet(np.ones(C * S), size=T)
    change, weights = rng.normal(size=(2, T, C * S))
    counts = some_counts(case).actions
    found = []
    for on_product in (False, True):
        arrays, slopes, pulls = game_arrays(case, moving=moving, on_product=on_product)
        values, policy, generated = imaged(arrays, flow, C, S)
        out, rows = np.empty((T, C * S)), np.empty((T * C * S, T * C * S))
        crowd.slope(arrays, *slopes, flow, change, 0.6, values, policy, out)
        crowd.jacobian(arrays, *slopes, flow, 0.6, values, policy, rows)
        on_reward, on_tables = np.empty_like(policy), crowd.no_moves(arrays)
        on_start = np.empty(C * S)
        crowd.pull(arrays, counts, weights, 0.6, values, policy, on_reward, on_tables, on_start)
        back = crowd.pull_back(pulls[0], flow, on_reward, flow.size + 1)
        if moving:
            back = back + crowd.pull_back(pulls[1], flow, on_tables, flow.size + 1)
        found.append([values, policy, generated, out, rows, on_reward, back])
        found[-1] += [on_start, per_block(on_tables, case) if on_product else on_tables]
        np.testing.assert_allclose(rows.T @ change.ravel(), out.ravel(), rtol=1e-10, atol=1e-12)
    for mine, other in zip(*found, strict=True):
        np.testing.assert_allclose(mine, other, **CLOSE)


def per_block(on_tables, case):
    """Diagonal blocks of what belongs to the product space, added up where cells share one."""
    C, S, _, shared = case
    apart = on_tables.reshape(len(on_tables), C, S, C, S * A)
    blocks = np.stack([apart[:, c, :, c] for c in range(C)], axis=1)
    return blocks.sum(1, keepdims=True) if shared else blocks


@pytest.mark.parametrize("case", [c for c in CASES if c[2] > 1 and c[1] < 10], ids=str)
def test_counted_moves(case):
    """Counts of moves in the kernels' layout are worth what they are by cell, and in torch."""
    C, S = case[:2]
    rng, transition = np.random.default_rng(8), by_cell(case)
    transition = (transition[:, :1] + 0.01).expand_as(transition) if case[3] else transition + 0.01
    state = rng.integers(C * S, size=60)
    steps = np.stack(
        [
            rng.integers(T, size=60),
            state,
            rng.integers(A, size=60),
            state // S * S + rng.integers(S, size=60),
        ],
        1,
    )
    steps = np.unique(steps, axis=0)
    n = rng.poisson(3.0, size=len(steps)) + 1.0
    counts = some_counts(case)
    by_cells = moves_seen(steps, n, tuple(transition.shape))
    stacked = moves_seen(steps, n, tuple(product(transition).shape))
    np.testing.assert_array_equal(product(by_cells), stacked)
    law = CoupledLikelihood(transition, counts, 0.9, 0.6, by_cells, False)
    counted = Counted(law)
    tables = law.kernel_tables.tables
    assert counted.moves.shape == tables.shape
    value = float((counted.moves * np.log(tables)).sum())
    assert value == pytest.approx(float(law.log_moves(law.transition)), rel=1e-12)
    core = torch.tensor(some_reward(case))
    entries = tables_along(law, core, law.transition)[1].numpy().reshape(-1)
    kept = steps[:, 0] < T - 1
    assert float(entries[move_places(steps[kept], by_cells.shape)] @ n[kept]) == pytest.approx(
        value
    )


def test_an_agent_that_changes_its_type_is_refused():
    """The fault says so, before any step of probability zero."""
    frame = pd.DataFrame(
        [(0, 0, "big, low", "a"), (0, 1, "small, low", "a"), (0, 2, "small, high", None)],
        columns=["agent", "time", "state", "action"],
    )
    frame[["size", "stock"]] = frame.state.str.split(", ", expand=True)
    panel = mfg.Trajectories.from_frame(
        frame, state=["size", "stock"],
        state_labels={"size": ["small", "big"], "stock": ["low", "high"]}, action_labels=["a", "b"],
    )  # fmt: skip
    typed = dataclasses.replace(panel, space=StateSpace(panel.space.coordinates, ("size",)))
    game = mfg.MeanFieldGame(
        states=panel.space.coordinates, actions=["a", "b"], horizon=2, initial=np.full(4, 0.25),
        transition=np.full((4, 2, 4), 0.25),
    )  # fmt: skip
    check_moves(panel, game, None)
    with pytest.raises(mfg.exceptions.DataError, match="an agent changes its type"):
        check_moves(typed, game, None)
    transition = torch.full((1, 2, 2, 2, 2), 0.5, dtype=torch.float64)
    with pytest.raises(mfg.exceptions.DataError, match="an agent changes its type") as error:
        check_moves(typed, game, transition)
    assert "probability zero" not in str(error.value)


def large_law(n_cells=40, *, shared=False):
    """A law that is large enough for threads."""
    S, n_times = 20, 30
    rng = np.random.default_rng(9)
    rows = torch.tensor(rng.dirichlet(np.ones(S), size=(1, 1 if shared else n_cells, S, 5)))
    counts = rng.poisson(1.0, size=(n_times, n_cells * S, 5)).astype(float)
    none = np.zeros(counts.shape[:2])
    transition = rows.expand(1, n_cells, S, 5, S)
    law = CausalLikelihood(transition, Counts(counts, none, none, np.zeros_like(counts)), 0.9, 1.0)
    assert bridge.in_threads(law.arrays())
    return law, rng.standard_normal(counts.shape)


@pytest.mark.parametrize("shared", [True, False])
def test_threads_change_no_bit(shared, monkeypatch):
    """Parts add up in one order, whoever computes them."""
    law, reward = large_law(shared=shared)
    found = []
    for n in (1, 2, 3):
        monkeypatch.setattr(threads, "n_cores", lambda n=n: n)
        value, gradient = law.evaluator()(reward)
        found.append((value, gradient.copy()))
    for value, gradient in found[1:]:
        assert value == found[0][0]
        np.testing.assert_array_equal(gradient, found[0][1])


@pytest.mark.parametrize("affine", [True, False])
def test_a_density_in_threads_is_the_one_without_python(affine):
    """Stage by stage around threads, or in one compiled call: the same number and gradient."""
    law, reward = large_law()
    rng, size = np.random.default_rng(10), reward.size
    matrix, offset = rng.standard_normal((2, size)), reward.reshape(-1)
    features = torch.tensor(matrix)

    def found(theta, *_):
        core = theta if affine else torch.tensor(offset) + theta @ features
        return torch.cat([-0.5 * (theta**2).sum().reshape(1), theta[:1], core])

    def pulled(theta, cotangent, _):
        core = cotangent[2:] if affine else features @ cotangent[2:]
        return core - cotangent[0] * theta + cotangent[1] * torch.tensor([1.0, 0.0])

    theta = torch.tensor([0.3, -0.2], dtype=torch.float64)
    program = lower(record([found, pulled], [theta, torch.zeros_like(found(theta))], KNOWN))
    core = (
        Affine(matrix, offset, np.empty(reward.shape)) if affine else Itself(np.array(reward.shape))
    )
    machine = bridge.tape_arrays(program)
    density = bridge.NativeDensity(machine, core, law.arrays(), prior=1.0, jacobian=0.5)
    value, gradient = density(theta.numpy())
    scale = np.abs(gradient).max()
    likelihood, slope = law.evaluator()(reward + (theta.numpy() @ matrix).reshape(reward.shape))
    assert value == pytest.approx(likelihood - 0.5 * float((theta**2).sum()) + 0.15, rel=1e-12)
    expected = matrix @ slope.reshape(-1) - theta.numpy() + [0.5, 0.0]
    np.testing.assert_allclose(gradient / scale, expected / scale, rtol=1e-10, atol=1e-12)
    density._stages = None
    other, alone = density(theta.numpy())
    assert value == pytest.approx(other, rel=1e-13)
    np.testing.assert_allclose(gradient / scale, alone / scale, rtol=1e-11, atol=1e-12)


FORKED = """
import multiprocessing, sys
sys.path.insert(0, {folder!r})
from test_cells import large_law, threads

law, reward = large_law()
evaluate = law.evaluator()

def child(queue):
    queue.put((threads.n_cores(), evaluate(reward)[0]))

value = evaluate(reward)[0]
context = multiprocessing.get_context("fork")
queue = context.Queue()
process = context.Process(target=child, args=(queue,))
process.start()
cores, other = queue.get(timeout=60)
process.join()
assert other == value and cores == 1, (cores, other, value)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are not forked")
def test_a_forked_process_goes_on_alone():
    """A child has none of its parent's threads, and waits for none."""
    program = FORKED.format(folder=str(Path(__file__).parent))
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=True, timeout=300)
