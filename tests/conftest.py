"""Fixtures shared by all tests."""

import os
import signal

import games
import pandas as pd
import pytest
import torch

import mfgppl as mfg

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # a shell's background job: Ctrl-C is tested
    signal.signal(signal.SIGINT, signal.default_int_handler)
if "PYTEST_XDIST_WORKER" in os.environ:  # the other cores have workers of their own
    torch.set_num_threads(1)

# agent, month, price, stock, move: ann stays to the end, bob enters late, cyd leaves and is seen
# once more, dee leaves unseen, eve is there once
VISITS = [
    ("ann", 3, 1, "low", "hold"),
    ("ann", 4, 2, "low", "raise"),
    ("ann", 5, 2, "high", "hold"),
    ("ann", 6, 1, "high", None),
    ("bob", 4, 1, "high", "raise"),
    ("bob", 5, 1, "low", "hold"),
    ("cyd", 3, 2, "high", "raise"),
    ("cyd", 4, 1, "low", None),
    ("dee", 3, 1, "low", "raise"),
    ("dee", 4, 2, "low", "hold"),
    ("eve", 5, 2, "low", "raise"),
]


@pytest.fixture
def visits() -> pd.DataFrame:
    """Five shops over three decisions, with late entries and early exits."""
    return pd.DataFrame(VISITS, columns=["shop", "month", "price", "stock", "move"])


@pytest.fixture
def few_panels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw twenty panels for each check of a report, ten for the distance from equilibrium, and 300
    times from the prior; take effects at ten draws.
    """
    from mfgppl.reporting import (  # slow to import
        effects_section,
        identification_section,
        prior_section,
        sections,
    )

    monkeypatch.setattr(effects_section, "EFFECT_DRAWS", 10)
    monkeypatch.setattr(sections, "CHECK_DRAWS", 20)
    monkeypatch.setattr(sections, "EQUILIBRIUM_DRAWS", 10)
    monkeypatch.setattr(identification_section, "PRIOR_DRAWS", 300)
    monkeypatch.setattr(prior_section, "PRIOR_DRAWS", 300)


@pytest.fixture
def blank_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave figures of reports blank, where a test looks at words and numbers alone."""
    monkeypatch.setattr("mfgppl.plots.predictions.drawn", lambda draw: "data:image/png;base64,")


@pytest.fixture(scope="session")
def roads_panel() -> mfg.Trajectories:
    """Sixty drivers in the equilibrium of `two_roads`."""
    return games.played(games.two_roads(), games.avoid_crowds, games.ROADS_TRUTH, 60, 1)


@pytest.fixture(scope="session")
def roads_model(roads_panel: mfg.Trajectories) -> mfg.TrajectoryModel:
    """The trajectory model of those drivers."""
    return mfg.TrajectoryModel(games.two_roads(), games.avoid_crowds, roads_panel)
