"""Agents who each have few neighbours: the law of what these do, and agents on the network itself.

An exposure `e` of a panel (`Trajectories.exposure`) follows a law of its own,

    P_t(s', e' | s, e, a) = P(s' | s, a) P_t(e' | e, s),

estimated and taken as it is, whatever one agent does: each is one of many neighbours of others.
"""

import numpy as np
import pandas as pd
import xarray as xr

from mfgppl._arguments import Seed, boolean, is_a, real_between, seed_of, strict_keywords
from mfgppl.data.exposure import Exposure
from mfgppl.data.space import StateSpace, index_of
from mfgppl.data.trajectories import Trajectories
from mfgppl.data.transitions import next_states
from mfgppl.equilibrium.response import check_policy
from mfgppl.equilibrium.simulation import draw_category
from mfgppl.exceptions import DataError, Fault
from mfgppl.game import MeanFieldGame


@strict_keywords
def dynamics(
    panel: Trajectories,
    *,
    prior_count: float = 0.5,
    contagion: bool = False,
    by_time: bool = True,
) -> xr.DataArray:
    """Estimate the dynamics of a panel whose state says what neighbours do.

    The exposure moves by smoothed frequencies of `P_t(e' | e, s)`, whatever the action; the rest of
    the state as in `Trajectories.estimate_transition`, pooled over time.

    Parameters
    ----------
    panel : Trajectories
        A panel with exposures.
    prior_count : float, positive
        Pseudo-count of each next value that is possible.
    contagion : bool
        Whether the rest of the state moves otherwise where the exposure is another, as an
        infection does.
    by_time : bool
        Whether the exposure's law differs by time, as where common shocks move all neighbours.

    Returns
    -------
    DataArray
        Probabilities with dims (time, state, action, next_state), T-1 tables; a game takes it as
        its `transition`.

    Raises
    ------
    ValueError
        If the panel has no exposure.
    DataError
        If no step is seen.
    """
    is_a("panel", panel, Trajectories)
    prior_count = real_between("prior_count", prior_count, above=0.0)
    contagion, by_time = boolean("contagion", contagion), boolean("by_time", by_time)
    around = _exposed(panel)
    own = StateSpace(
        {k: v for k, v in panel.space.within.coordinates.items() if k not in panel.exposures}
    )
    E, S, A, T = around.size, own.size, len(panel.actions), panel.horizon
    steps, n = panel.transition_counts()
    steps, n = steps[steps[:, 0] < T - 1], n[steps[:, 0] < T - 1]
    if not len(steps):
        fault = Fault("no step from one time to the next", 0, (), "give two times of an agent")
        raise DataError([fault])
    t, s, a, x = steps.T
    here, there = s % (S * E), x % (S * E)  # types left out
    of_own = here // E, a, there // E
    which = here % E if contagion else np.zeros(len(here), dtype=int)
    moves = np.zeros((E if contagion else 1, S, A, S))
    np.add.at(moves, (which, *of_own), n)
    seen = np.stack([t, *of_own], axis=1)
    possible = next_states("seen", np.unique(seen, axis=0), own, panel.actions)
    stays = panel.absorbing_states().reshape(S, E).any(1)
    possible[stays] = np.eye(S, dtype=bool)[stays][:, None]
    moves += prior_count * possible
    moves = np.broadcast_to(moves / moves.sum(-1, keepdims=True), (E, S, A, S))
    law = np.full((T - 1 if by_time else 1, S, E, E), prior_count)
    np.add.at(law, (t if by_time else 0, here // E, here % E, there % E), n)
    law = np.broadcast_to(law / law.sum(-1, keepdims=True), (T - 1, S, E, E))
    table = np.einsum("esax,tsef->tseaxf", moves, law).reshape(T - 1, S * E, A, S * E)
    states = index_of(panel.space.within.labels)
    coords = {"state": states, "action": index_of(panel.actions), "next_state": states}
    return xr.DataArray(table, dims=("time", "state", "action", "next_state"), coords=coords)


@strict_keywords
def simulate(
    panel: Trajectories, game: MeanFieldGame, policy: object, *, random_seed: Seed = None
) -> Trajectories:
    """Draw the agents of a panel again, on their own network.

    Each begins where it was first seen, is there at the times at which it was there, acts by the
    policy at what its neighbours do in this draw, and moves by the game's dynamics, of which the
    law of the exposure is not used. What a fit takes as given is so checked: statistics of such
    draws that differ from the panel's say that its law of the exposure is not that of the network.

    Parameters
    ----------
    panel : Trajectories
        A panel with exposures, from `Trajectories.exposure`.
    game : MeanFieldGame
        A game over its states, whose dynamics no crowd moves.
    policy : array or DataArray, shape (T, S, A)
        Probability of each action.
    random_seed : int or SeedSequence, optional
        Seed of the draws; by default a fresh one.

    Returns
    -------
    Trajectories
        A panel of the same agents and times.

    Raises
    ------
    ValueError
        If the panel has no exposure or agents who are carried forward, or the game has other states
        or dynamics that a crowd moves.
    """
    is_a("panel", panel, Trajectories)
    is_a("game", game, MeanFieldGame)
    around = _exposed(panel)
    if panel.carried.any():
        raise ValueError(
            f"`panel` carries {int((panel.carried > 0).sum())} agents forward in an absorbing "
            "state; when they get there is part of a draw, but each draw has the panel's times of "
            "decisions. Panels of agents who stay, or leave for other reasons, can be drawn."
        )
    if game.crowd_moves_dynamics:
        raise ValueError(
            "`game` must have dynamics that no crowd moves; those of a panel's do not."
        )
    if game.space.coordinates != panel.space.coordinates or game.actions != panel.actions:
        raise ValueError("`game` must have the panel's states and actions, in the same order.")
    acts = check_policy(game, policy).detach().numpy().cumsum(-1)
    moves = game.steps
    rng = np.random.default_rng(seed_of(random_seed))
    who = pd.factorize(panel.agents)[0]
    n = who.max() + 1
    state, action = panel.state.copy(), panel.action.copy()
    owner = who[panel.trajectory]
    first = np.zeros(len(state), dtype=bool)
    first[panel.offsets[:-1]] = True
    there = panel.present(who, n)
    order = [np.flatnonzero(panel.time == t) for t in range(panel.horizon + 1)]
    base = np.full(n, -1)
    for t, rows in enumerate(order):
        begin = rows[first[rows]]
        base[owner[begin]] = panel.state[begin] // around.size
        full = _with_exposures(panel.exposures, np.where(there[t] >= 0, base, -1), t)
        state[rows] = full[owner[rows]]
        acting = rows[panel.action[rows] >= 0]
        if not len(acting):
            continue
        action[acting] = draw_category(rng, acts[t][state[acting]])
        if t + 1 < panel.horizon:
            following = moves.draw(t, state[acting], action[acting], rng.random(len(acting)))
            base[owner[acting]] = following // around.size
    return panel.redrawn(state, action)


def _exposed(panel: Trajectories) -> StateSpace:
    """Return the space of a panel's exposures, which stand last in the state, else raise."""
    names = list(panel.exposures)
    if not names:
        raise ValueError(
            "`panel` has no exposure to neighbours; add one with panel.exposure(edges, of=...)."
        )
    if list(panel.space.coordinates)[-len(names) :] != names:
        raise ValueError(
            f"`panel` must have its exposures {names} last among the states; got "
            f"{list(panel.space.coordinates)}."
        )
    return StateSpace({name: panel.space.coordinates[name] for name in names})


def _with_exposures(exposures: dict[str, Exposure], state: np.ndarray, time: int) -> np.ndarray:
    """Return states (n,) with what neighbours do, -1 where absent."""
    for exposure in exposures.values():
        codes = exposure.codes(exposure.shares(state, time))
        state = np.where(state >= 0, state * len(exposure.labels) + codes, -1)
    return state
