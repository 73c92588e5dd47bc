"""Errors and warnings travel: between processes, and as copies."""

import copy
import importlib
import inspect
import pickle
import pkgutil

import cloudpickle
import joblib
import pytest

import mfgppl as mfg
from mfgppl.exceptions import DataError, Fault

FAULTS = (
    Fault("missing value in 'state'", 2, ("time=1", "time=4"), "fill in or drop the rows"),
    Fault("gap in time before", 1, ("time=3",), "fill in the times"),
)
ARGUMENTS = {DataError: (FAULTS,)}  # of those that take more than words


def own_exceptions():
    """Return every exception and warning class that a module of the package defines."""
    found = set()
    for module in pkgutil.walk_packages(mfg.__path__, "mfgppl."):
        room = importlib.import_module(module.name)
        for value in vars(room).values():
            if inspect.isclass(value) and issubclass(value, BaseException):
                found.add(value)
    return sorted((c for c in found if c.__module__.startswith("mfgppl")), key=lambda c: c.__name__)


OWN = own_exceptions()


def test_the_walk_meets_the_public_ones():
    """What follows is asserted of something."""
    public = {v for v in vars(mfg).values() if inspect.isclass(v) and issubclass(v, BaseException)}
    assert public <= set(OWN)


@pytest.mark.parametrize("kind", OWN, ids=lambda c: c.__name__)
@pytest.mark.parametrize(
    "through",
    [
        lambda e: pickle.loads(pickle.dumps(e)),
        lambda e: pickle.loads(cloudpickle.dumps(e)),
        copy.copy,
        copy.deepcopy,
    ],
    ids=["pickle", "cloudpickle", "copy", "deepcopy"],
)
def test_a_copy_says_the_same(kind, through):
    """Class, words, arguments, attributes and notes survive."""
    error = kind(*ARGUMENTS.get(kind, ("what went wrong",)))
    error.add_note("where")
    again = through(error)
    assert type(again) is kind
    assert str(again) == str(error) != ""
    assert again.args == error.args
    assert vars(again) == vars(error)


def test_the_table_of_faults_keeps_its_words():
    """A `DataError` shows each fault in a row of its own."""
    first, *rows = str(DataError(list(FAULTS))).split("\n")
    assert first == "the panel has 2 faults; nothing was changed."
    assert len(rows) == 3
    assert all(fault.what in row and fault.remedy in row for fault, row in zip(FAULTS, rows[1:]))  # noqa: B905


def test_an_error_comes_back_from_a_worker():
    """A pool of processes hands on the error, and neither breaks nor waits."""

    def fails(_):  # by value, since workers do not import tests
        raise DataError(FAULTS)

    with pytest.raises(DataError, match="2 faults"):
        joblib.Parallel(n_jobs=2)(joblib.delayed(fails)(k) for k in range(2))
