"""What a reward program sees."""

import itertools

import numpy as np
import pytest
import torch
from games import ROUNDING, full_table, lone, random_rows, shop, two_roads

from mfgppl.reward.inputs import RewardInputs

PRICES, STOCKS, MOVES = [3, 1, 2], ["low", "high"], ["raise", "hold", "cut", "close"]
TABLE = list(itertools.product(range(5), range(6), range(4)))


@pytest.fixture
def flow() -> torch.Tensor:
    """A flow over the states of `shop` with no two equal shares."""
    return torch.as_tensor(random_rows(3, 5, 6))


@pytest.fixture
def x(flow) -> RewardInputs:
    """The inputs of `shop` with two features."""
    features = {"rent": ("price", [30.0, 10.0, 20.0]), "season": ("time", np.arange(5.0) ** 2)}
    return RewardInputs(shop(features=features), flow)


def test_time_is_the_decision_time(x):
    """`x.time` is t at each time, state and action."""
    table = full_table(x.time, x.game)
    assert all(table[t, s, a] == t for t, s, a in TABLE)


def test_a_coordinate_of_numbers_is_their_value(x):
    """A numeric coordinate is the number, not its position."""
    table = full_table(x.price, x.game)
    assert all(table[t, s, a] == PRICES[s // 2] for t, s, a in TABLE)


def test_a_coordinate_of_words_is_compared(x):
    """Equality gives 1 where the state has the label and 0 elsewhere; inequality the rest."""
    is_low, not_low = full_table(x.stock == "low", x.game), full_table(x.stock != "low", x.game)
    for t, s, a in TABLE:
        assert is_low[t, s, a] == float(STOCKS[s % 2] == "low")
        assert not_low[t, s, a] == float(STOCKS[s % 2] != "low")


@pytest.mark.parametrize("move", MOVES)
def test_actions_of_words_are_compared(x, move):
    """An action's indicator stands on the action's axis."""
    table = full_table(x.action == move, x.game)
    assert all(table[t, s, a] == float(MOVES[a] == move) for t, s, a in TABLE)


def test_actions_of_numbers_are_their_values():
    """Numeric actions are numbers to compute with."""
    x = RewardInputs(two_roads(actions=[-1, 0.5]), torch.full((4, 2), 0.5))
    assert x.action.flatten().tolist() == [-1.0, 0.5]
    assert x.action.shape == (1, 1, 2)


def test_density_is_the_share_in_ones_own_state(x, flow):
    """`x.density` is the flow at one's time and state, whatever one does."""
    table = full_table(x.density, x.game)
    assert all(table[t, s, a] == float(flow[t, s]) for t, s, a in TABLE)


def test_mean_field_is_the_flow(x, flow):
    """The flow itself is there, (T, S)."""
    torch.testing.assert_close(x.mean_field, flow, rtol=0, atol=0)


def test_features_are_inputs_by_name(x):
    """A feature of the game is an attribute."""
    rent, season = full_table(x.rent, x.game), full_table(x.season, x.game)
    for t, s, a in TABLE:
        assert rent[t, s, a] == 10.0 * PRICES[s // 2]
        assert season[t, s, a] == t**2


def test_expect_is_the_crowds_mean(x, flow):
    """Means of a coordinate, a feature, the density and a tensor equal loops over states."""
    square = x.price**2
    for t in range(5):
        share = flow[t].tolist()
        price = sum(m * PRICES[s // 2] for s, m in enumerate(share))
        squares = sum(m * PRICES[s // 2] ** 2 for s, m in enumerate(share))
        own = sum(m * m for m in share)
        assert float(x.expect("price")[t]) == pytest.approx(price, abs=ROUNDING)
        assert float(x.expect("rent")[t]) == pytest.approx(10 * price, abs=ROUNDING)
        assert float(x.expect(square)[t]) == pytest.approx(squares, abs=ROUNDING)
        assert float(x.expect("density")[t]) == pytest.approx(own, abs=ROUNDING)
        assert float(x.expect("season")[t]) == pytest.approx(t**2, abs=ROUNDING)
    assert x.expect("price").shape == (5, 1, 1)


def test_share_is_the_mass_of_states_with_the_labels(x, flow):
    """Shares of one label and of two equal sums over states."""
    for t in range(5):
        high = sum(float(flow[t, s]) for s in range(6) if STOCKS[s % 2] == "high")
        both = float(flow[t, PRICES.index(2) * 2 + STOCKS.index("low")])
        assert float(x.share(stock="high")[t]) == pytest.approx(high, abs=ROUNDING)
        assert float(x.share(stock="low", price=2)[t]) == pytest.approx(both, abs=ROUNDING)
    total = x.share(stock="low") + x.share(stock="high")
    torch.testing.assert_close(total, torch.ones(5, 1, 1, dtype=torch.float64))


def test_isin_is_one_where_any_label_fits(x):
    """Membership is 0 or 1, also where a label is named twice."""
    table = full_table(x.action.isin(["cut", "raise", "cut"]), x.game)
    assert all(table[t, s, a] == float(MOVES[a] in ("cut", "raise")) for t, s, a in TABLE)


def test_isin_of_nothing_is_zero(x):
    """No label fits an empty list."""
    assert float((x.stock.isin([]) + torch.zeros(5, 6, 4)).abs().sum()) == 0.0


def test_inputs_of_size_one_keep_their_axes():
    """With one state, action and time each input still has three axes."""
    x = RewardInputs(lone(), torch.ones(1, 1, dtype=torch.float64))
    for values in (x.time, x.density, x.state == "here", x.action == "wait"):
        assert values.shape == (1, 1, 1)


def test_a_label_that_is_not_one_is_refused(x):
    """A comparison with a misspelt label raises and suggests the label meant."""
    with pytest.raises(ValueError, match=r"x\.stock .*'hihg'.*\['low', 'high'\].*`high`"):
        x.stock == "hihg"  # noqa: B015
    with pytest.raises(ValueError, match=r"x\.action .*'rise'.*`raise`"):
        x.action != "rise"  # noqa: B015


def test_a_number_is_no_label_of_words(x):
    """Words compared with a number raise instead of giving zeros."""
    with pytest.raises(ValueError, match=r"x\.action is compared with 0"):
        x.action == 0  # noqa: B015


def test_an_input_that_is_not_one_is_refused(x):
    """A misspelt input raises, suggests and lists."""
    with pytest.raises(AttributeError, match=r"x\.prise;.*`price`.*inputs: .*rent.*season"):
        x.prise  # noqa: B018


def test_words_have_no_mean(x):
    """A mean of words points to the share."""
    with pytest.raises(TypeError, match=r"x\.share\(stock='low'\)"):
        x.expect("stock")


def test_a_mean_over_actions_is_refused(x):
    """What varies with the action is no quantity of the crowd's states."""
    with pytest.raises(TypeError, match=r"\(T, S, 1\).*\(5, 6, 4\)"):
        x.expect(torch.zeros(5, 6, 4))


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ({"shelf": "low"}, "'shelf' is no coordinate; there are price, stock"),
        ({"stock": "empty"}, r"'empty' is no label of 'stock', which has \['low', 'high'\]"),
        ({"price": 7}, r"7 is no label of 'price', which has \[3, 1, 2\]"),
        ({"stok": "low"}, "did you mean `stock`"),
    ],
)
def test_a_share_of_unknown_labels_is_refused(x, labels, words):
    """An unknown coordinate or label raises with what there is."""
    with pytest.raises(ValueError, match=words):
        x.share(**labels)


@pytest.mark.parametrize("name", ["shape", "_game"])
def test_no_coordinate_hides_what_the_inputs_need(name):
    """A name that the inputs use themselves is refused when the game is built."""
    with pytest.raises(ValueError, match=name):
        two_roads(features={name: ("state", [1.0, 2.0])})


@pytest.mark.parametrize("name", ["class", "lambda"])
def test_a_word_of_python_is_no_name(name):
    """`x.class` cannot be written, so the name is refused."""
    with pytest.raises(ValueError, match=name):
        two_roads(features={name: ("state", [1.0, 2.0])})
