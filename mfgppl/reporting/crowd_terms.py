"""The crowd's coefficients: which parameters they are, and what a report says of them first."""

from typing import Any

import numpy as np
import pandas as pd
import torch

from mfgppl.density.draws import flat_draws
from mfgppl.density.of_model import density_of
from mfgppl.estimation.point_estimate import PointEstimate
from mfgppl.likelihood.model import TrajectoryModel
from mfgppl.reporting.subject import Subject
from mfgppl.reward.inputs import RewardInputs
from mfgppl.reward.program import bind, double_precision
from mfgppl.reward.valued import worth_table

MOST_TRIED = 60  # parameters beyond which they are not tried one by one
MOST_SAID = 3
STEP = 1e-3  # of a parameter, relative, and at least of 1
NOTHING = 1e-9  # change of a reward that is rounding, relative to the largest


def crowd_parameters(model: TrajectoryModel, values: np.ndarray) -> list[str]:
    """Return the parameters whose effect on the reward depends on the crowd's flow.

    Found by differences, at flat constrained values (P,), between the model's flow and another.
    """
    program = density_of(model).program
    names = program.entry_names()
    if not model.reward_reads_flow or model.nodes is not None or len(names) > MOST_TRIED:
        return []
    given = model.mean_field.detach()
    mixed = torch.from_numpy(np.random.default_rng(0).dirichlet(np.ones(given[0].numel()),
                                                                size=len(given)))  # fmt: skip
    flows = [given, 0.5 * given + 0.5 * mixed.reshape(given.shape) * given.sum() / len(given)]
    inputs = [RewardInputs(model.game, flow) for flow in flows]

    def gap(at: np.ndarray) -> Any:
        """Return what decisions are worth along one flow less along the other."""
        reward = bind(model.reward, program.by_site(torch.from_numpy(at.copy())))
        with double_precision(), torch.no_grad():
            here, there = (worth_table(reward, along) for along in inputs)
        return (here - there).masked_fill(~model.game.available, 0.0).numpy()

    start, found = gap(values), []
    for k, name in enumerate(names):
        moved, step = values.copy(), STEP * max(1.0, abs(values[k]))
        moved[k] += step
        change = np.abs(gap(moved) - start).max() / step
        if change > NOTHING * max(1.0, float(np.abs(start).max())):
            found.append(name)
    return found


def crowd_sentences(subject: Subject, rows: pd.DataFrame) -> tuple[str, ...]:
    """Say what the crowd's coefficients are, with intervals, by treatment where several are fit.

    Parameters
    ----------
    subject : Subject
        What the report is about.
    rows : DataFrame
        `estimate`, `lower` and `upper` by parameter.
    """
    model = subject.model
    if model is None:
        return ()
    names = [n for n in crowd_parameters(model, _values(subject, model)) if n in rows.index]
    prob, said = f"{100 * subject.ci_prob:g}%", []
    for name in names[:MOST_SAID]:
        row = rows.loc[name]
        text = f"The crowd's coefficient “{name}” is {row['estimate']:.3g}"
        if np.isfinite(row["lower"]):
            text += f" ({prob} interval {row['lower']:.3g} to {row['upper']:.3g})"
        said.append(text + _by_treatment(subject, name) + ".")
    return tuple(said)


def _values(subject: Subject, model: TrajectoryModel) -> np.ndarray:
    """Return the parameters (P,) at which terms are looked for."""
    if isinstance(subject.fit, PointEstimate):
        return subject.fit.params.to_numpy(dtype=float)
    assert subject.draws is not None
    return np.asarray(flat_draws(density_of(model).program, subject.draws).mean((0, 1)))


def _by_treatment(subject: Subject, name: str) -> str:
    """Return a coefficient by treatment of the flow."""
    found = subject.treatments
    if found is None or name not in found.table.index.get_level_values("parameter"):
        return ""
    rows = found.table.xs(name, level="parameter").loc[list(found.fits)]
    each = ", ".join(
        f"{way} {row['estimate']:.3g} ({row['lower']:.3g} to {row['upper']:.3g})"
        for way, row in rows.iterrows()
    )
    return f"; by treatment of the crowd's flow {each}"
