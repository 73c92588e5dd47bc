"""What panels cannot identify of agents whose kinds are not seen."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor

from mfgppl._generated_flow import uniform_policy
from mfgppl.density.plug_in import PlugInDensity
from mfgppl.density.protocol import LogDensity
from mfgppl.density.sizes import effects_of, slope_at
from mfgppl.design.rank_test import RankTest, Tested
from mfgppl.equilibrium.fixed_point import settled
from mfgppl.equilibrium.simulation import drawn_panel
from mfgppl.estimation.point import scores_of
from mfgppl.estimation.twin_kinds import policies_of
from mfgppl.likelihood.kinds import KindsLikelihood
from mfgppl.likelihood.model import TrajectoryModel
from mfgppl.reward.kinds_as_types import pooled, typed
from mfgppl.reward.parameters import Program

HISTORIES, FOR_EACH = 200, 10  # drawn at least, and for each parameter
DECISIONS = 20  # of an agent in a stationary game
SAME = 1e-9  # difference of choice probabilities that is rounding
ASIDE = 0.1  # of all parameters, where what holds by coincidence at a point does not


class Histories(NamedTuple):
    """The evidence of agents' whole histories, of a program whose kinds are not seen."""

    program: Program

    def middle(self) -> np.ndarray:
        """Return one draw from the prior, unconstrained (K,): medians of like kinds are alike."""
        return self.program.draw(0)

    def equilibrium(self, theta: np.ndarray) -> Tensor:
        """Return the flow of the whole crowd in the equilibrium of all kinds, else raise."""
        program = self.program
        bound = typed(program.game, program.reward, program.values_at(theta))
        return pooled(program.game, settled(*bound, throw=True).mean_field)

    def tests(self, flows: Sequence[Tensor], points: Sequence[np.ndarray]) -> Tested:
        """Return the rank tests at points, of the scores of histories."""
        densities = _densities_along(self.program, flows)
        tests = []
        for point in points:
            rows, size, slope, values = _scaled_scores(densities, point)
            tests.append(RankTest(np.asarray(np.linalg.qr(rows, mode="r")), size, slope, values))
        return tests, _reasons(densities, points[0])


def _densities_along(program: Program, flows: Sequence[Tensor]) -> list[LogDensity]:
    """Return the densities of panels of agents who act at random along flows.

    Such panels have every history that can occur, whatever agents of some kind would do.
    """
    game, uniform = program.game, uniform_policy(program.game)
    n_agents = max(HISTORIES, FOR_EACH * program.n_dim)
    n_times = game.horizon or DECISIONS

    def at_random(crowd: Tensor, t: int) -> Tensor:
        return uniform[0 if game.stationary else t]

    found: list[LogDensity] = []
    for flow in flows:
        sizes = {"n_agents": n_agents, "n_times": n_times, "random_seed": 0}
        panel = drawn_panel(game, at_random, flow, **sizes)
        model = TrajectoryModel.of_program(program, panel, flow)
        assert isinstance(model.law, KindsLikelihood)
        found.append(PlugInDensity(model, model.law))
    return found


def _scaled_scores(
    densities: Sequence[LogDensity], theta: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return scores of histories in units of the parameters' effects, these, slope and values.

    A combination of parameters that changes the probability of no history cannot be identified.
    """
    rows, sizes = [], []
    for density in densities:
        values, slope = slope_at(density.program, theta)
        scores = scores_of(density, theta)
        assert scores is not None
        rows.append(scores / np.sqrt(len(scores)))
        sizes.append(effects_of(density, theta).moves(slope))
    size = np.max(sizes, axis=0)
    size[size == 0] = 1.0
    return np.concatenate(rows) / size, size, slope, values


def _reasons(densities: Sequence[LogDensity], theta: np.ndarray) -> tuple[str, ...]:
    """Return in words what keeps kinds and coefficients from being identified."""
    model = densities[0].model
    nodes, law = model.nodes, model.law
    assert nodes is not None
    assert isinstance(law, KindsLikelihood)
    found = []
    for site in reversed(nodes.sites):
        differ = 0.0
        for density in densities:
            policies = _choices_and_shares(density, theta)[0]
            of_value = policies_of(density.model, policies, site.name)
            differ = max(differ, float(np.abs(of_value - of_value[0]).max()))
        if differ < SAME:
            what = "kinds do" if site.kinds else "values make agents do"
            found.append(f"no choice depends on {site.name!r}: all its {what} the same")
        elif site.kinds and not model.game.stationary:
            T, _, A = model.game.shape
            found += _few_decisions(site.name, site.size, T, A)
    return (*found, *_few_probabilities(densities, theta))


def _few_decisions(name: str, n_kinds: int, T: int, A: int) -> list[str]:
    """Return a sentence where decisions are too few to tell so many kinds apart by themselves."""
    if T == 1:
        return [
            f"each agent decides once, which says nothing of {name!r}: a mixture of choices is one "
            "distribution of choices"
        ]
    most = A ** ((T - 1) // 2)
    if n_kinds <= most:
        return []
    return [
        f"{T} decisions among {A} actions can tell {most} kind{'s' * (most > 1)} apart whatever "
        f"their choices, and {name!r} has {n_kinds}: what is identified rests on the form of the "
        "reward (Kasahara and Shimotsu, 2009)"
    ]


def _few_probabilities(densities: Sequence[LogDensity], theta: np.ndarray) -> list[str]:
    """Return a sentence where kinds choose alike at all decisions and parameters are more.

    Then the law of histories depends on the parameters through the shares and one distribution
    over actions for each kind alone.
    """
    nodes, n_actions = densities[0].model.nodes, densities[0].model.game.n_actions
    assert nodes is not None
    site = nodes.sites[0]
    shown = site.size * n_actions - 1
    if len(nodes.sites) > 1 or not site.kinds or len(theta) <= shown:
        return []
    for point in (theta, theta + ASIDE):
        found = [_choices_and_shares(density, point) for density in densities]
        choices = [policies.reshape(site.size, -1, n_actions) for policies, _ in found]
        for tables in (choices, [shares for _, shares in found]):
            if np.ptp(np.concatenate(tables, axis=1), axis=1).max() > SAME:
                return []
    return [
        f"each value of {site.name!r} has one set of choice probabilities at all decisions: with "
        f"the shares these are {shown} numbers, fewer than the {len(theta)} parameters (of a rate "
        "of lapses beside one gap in value for each kind, say)"
    ]


def _choices_and_shares(density: LogDensity, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the policies (N, T, S, A) of kinds and their shares (N, S) by first state."""
    law = density.model.law
    assert isinstance(law, KindsLikelihood)
    log_policies, logs = law.table_arrays(density.rewards(density.constrained(theta[None]))[0])
    return np.exp(log_policies), np.exp(logs)
