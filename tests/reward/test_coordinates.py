"""A coordinate means the same whatever its labels are called."""

import copy
import operator
import pickle

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

import mfgppl as mfg
from mfgppl.density.of_model import density_of
from mfgppl.reward.inputs import RewardInputs

FLOAT = torch.float64
WORDS = {"stock": ["none", "low", "high"], "action": ["stay", "go"]}
NUMBERS = {"stock": [0, 2, 1], "action": [1, 0]}  # of the same meaning, in the same order
NUMBER = {word: n for k in WORDS for word, n in zip(WORDS[k], NUMBERS[k], strict=True)}
TABLE = np.random.default_rng(0).dirichlet(np.ones(3), size=(3, 2))


def game(labels):
    return mfg.MeanFieldGame(
        states={"stock": labels["stock"]}, actions=labels["action"], horizon=4, transition=TABLE,
        initial=[0.2, 0.3, 0.5], features={"rent": ("time", [1.0, 2.0, 3.0, 4.0])},
    )  # fmt: skip


def inputs(labels):
    return RewardInputs(game(labels), torch.full((4, 3), 1 / 3, dtype=FLOAT))


TERMS = {
    "equal": lambda x, n: x.stock == n("low"),
    "not equal": lambda x, n: x.stock != n("low"),
    "sum of two": lambda x, n: (x.stock == n("low")) + (x.action == n("go")),
    "product": lambda x, n: (x.stock == n("low")) * (x.action != n("go")),
    "one less": lambda x, n: 1 - (x.action == n("go")),
    "less one": lambda x, n: (x.action == n("go")) - 1,
    "minus": lambda x, n: -(x.action == n("go")),
    "isin": lambda x, n: x.stock.isin([n("low"), n("none")]),
    "codes": lambda x, n: torch.tensor([3.0, 5.0, 7.0], dtype=FLOAT)[x.stock.codes],
    "mean": lambda x, n: (x.stock == n("low")).mean(1, keepdim=True),
    "and": lambda x, n: 1.0 * ((x.stock == n("low")) & (x.action == n("go"))),
    "or": lambda x, n: 1.0 * ((x.stock == n("low")) | (x.density > 1.0)),
    "exclusive": lambda x, n: 1.0 * ((x.time < 2) ^ (x.stock == n("low"))),
    "not": lambda x, n: 1.0 * ~(x.stock == n("low")),
    "where": lambda x, n: torch.where(x.stock == n("low"), 2.0, x.time),
    "masked": lambda x, n: x.density.masked_fill(x.stock == n("low"), 7.0),
    "stacked": lambda x, n: torch.stack([x.stock == n("low"), x.stock == n("high")]).sum(0),
    "expected": lambda x, n: x.expect(x.stock == n("low")),
}


@pytest.mark.parametrize("term", TERMS.values(), ids=TERMS)
def test_numbers_and_words_give_the_same_terms(term):
    """The right value is that of words, whose comparisons are tables of 0 and 1."""
    by_words = term(inputs(WORDS), lambda word: word)
    by_numbers = term(inputs(NUMBERS), NUMBER.get)
    assert by_words.dtype == by_numbers.dtype == FLOAT
    assert torch.equal(torch.as_tensor(by_words) + 0.0, torch.as_tensor(by_numbers) + 0.0)


def test_comparisons_are_counted_by_hand():
    x = inputs(NUMBERS)
    assert (x.stock == 2).flatten().tolist() == [0.0, 1.0, 0.0]
    assert ((x.stock == 2) + (x.action == 0)).shape == (1, 3, 2)
    assert ((x.stock == 2) + (x.action == 0)).max() == 2.0
    assert (1 - (x.time >= 1) - (x.rent > 2.5)).flatten().tolist() == [1.0, 0.0, -1.0, -1.0]
    assert x.stock.codes.flatten().tolist() == [0, 1, 2]
    assert x.stock.codes.shape == (1, 3, 1)


@pytest.mark.parametrize("label", ["1", 7, 1.5, None, "lwo"])
@pytest.mark.parametrize("labels", [WORDS, NUMBERS])
@pytest.mark.parametrize(
    "compare", [operator.eq, operator.ne, lambda axis, label: axis.isin([label])]
)
def test_unknown_labels_are_errors_that_list_the_labels(labels, compare, label):
    with pytest.raises(ValueError, match=r"x\.stock is compared with .* not one of its labels"):
        compare(inputs(labels).stock, label)


@pytest.mark.parametrize("same", [2, 2.0, np.int64(2), np.float32(2.0), np.array(2)])
def test_equal_numbers_are_the_same_label(same):
    assert (inputs(NUMBERS).stock == same).flatten().tolist() == [0.0, 1.0, 0.0]


@pytest.mark.parametrize("compare", [operator.eq, operator.ne, operator.lt, operator.gt])
def test_tensors_are_compared_by_value_from_either_side(compare):
    stock, plain = inputs(NUMBERS).stock, torch.tensor([0.0, 2.0, 1.0], dtype=FLOAT)[None, :, None]
    level = torch.tensor(0.5, dtype=FLOAT)
    assert torch.equal(compare(stock, level) + 0.0, compare(plain, level).double())
    assert torch.equal(compare(level, stock) + 0.0, compare(level, plain).double())


def test_what_is_computed_of_numbers_is_plain():
    x = inputs(NUMBERS)
    one, both = x.stock == 2, torch.cat([x.stock, x.stock])
    found = [x.stock + 1, x.stock.exp(), 2 * x.time, x.stock[0], x.rent**2, one * 1, 1 - one, both]
    for each in [*found, x.expect("stock"), x.share(stock=2)]:
        assert type(each) is torch.Tensor


@pytest.mark.parametrize(
    "through", [copy.copy, copy.deepcopy, lambda v: pickle.loads(pickle.dumps(v))]
)
def test_numbers_keep_their_labels_where_they_travel(through):
    stock = through(inputs(NUMBERS).stock)
    assert (stock == 2).flatten().tolist() == [0.0, 1.0, 0.0]
    with pytest.raises(ValueError, match="labels"):
        stock == 7  # noqa: B015


def test_derivatives_and_batches_go_through():
    """Forward, backward and batched derivatives of a program with comparisons of parameters."""
    x = inputs(NUMBERS)

    def worth(w):
        return (w * (x.stock > w) * (1 - (x.action == 0)) * x.stock).sum()

    points = torch.tensor([0.5, 1.5], dtype=FLOAT)
    slopes = [1.0 + 2.0, 2.0]  # one of two actions; stocks above w
    assert torch.func.vmap(torch.func.grad(worth))(points).tolist() == slopes
    assert torch.func.vmap(torch.func.jacfwd(worth))(points).tolist() == slopes


def test_programs_of_numbers_are_compiled_as_those_of_words():
    """The recorded density equals that of words, with comparisons, codes and conditions."""

    def program(n):
        def reward(x):
            w = pyro.sample("w", dist.Normal(torch.zeros(3), 1.0).to_event(1))
            level = pyro.sample("level", dist.Normal(0.0, 1.0))
            move = w[x.stock.codes] * (x.action == n("go"))
            return torch.where(x.stock == n("low"), level * x.density, move) - (x.time > 1) * level

        return reward

    found = []
    for labels, n in ((WORDS, lambda word: word), (NUMBERS, NUMBER.get)):
        half = np.full((4, 3, 2), 0.5)
        panel = mfg.simulate(game(labels), half, np.full((4, 3), 1 / 3), n_agents=40, random_seed=1)
        density = density_of(mfg.TrajectoryModel(game(labels), program(n), panel))
        assert density.compiled.affine is not None
        value, slope = density.evaluator(prior=1.0, jacobian=1.0)(np.array([0.1, -0.2, 0.3, 0.4]))
        found.append([value, *slope])
    np.testing.assert_allclose(*found, rtol=1e-12)
