"""Where fits of unseen kinds start: from groups of agents who do alike."""

import copy
import math
import warnings
from dataclasses import replace

import numpy as np

from mfgppl._quasi_newton import maximise
from mfgppl.density.protocol import LogDensity
from mfgppl.density.who_is_who import kind_shares, sites_of
from mfgppl.likelihood.kinds import KindsLikelihood

KNOWN_STEPS = 60  # of the climb with given kinds
SIDES = 0.7  # log spread of the weights of what agents do


def start_from_groups(
    density: LogDensity, theta: np.ndarray, units: np.ndarray, seed: int
) -> np.ndarray:
    """Return where the likelihood rises to, from a point, if agents were of given kinds.

    Agents who do alike are put in one group, by k-means on what they do in which state; each group
    is taken for a kind. From equal kinds a climb would go nowhere.

    Parameters
    ----------
    density : LogDensity
        Of a model with kinds.
    theta, units : ndarray, shape (K,)
        The point, and the step of each parameter that is of order one.
    seed : int
        Seed of the groups.
    """
    model = density.model
    law, kinds = model.law, sites_of(model, kinds=True)
    assert isinstance(law, KindsLikelihood)
    if not kinds:
        return theta
    n_groups = math.prod(site.size for site in kinds)
    groups = _groups(law, n_groups, seed)
    own = np.eye(law.n_nodes)  # which kind each node is of
    of_node = kind_shares(model, own, [s.name for s in kinds]).reshape(law.n_nodes, -1).argmax(1)
    known = np.where(of_node == groups[:, None], 0.0, -np.inf)
    if law.histories.known.size:  # what is seen of some agents' kinds
        seen = (law.histories.known < 0).any(axis=1)
        known[seen] = law.histories.known[seen]
    grouped = copy.copy(model)
    grouped.law = replace(law, histories=law.histories._replace(known=known))
    evaluate = density.for_model(grouped).evaluator(prior=0.0, jacobian=0.0)
    return maximise(evaluate, theta, units=units, max_steps=KNOWN_STEPS).point


def _groups(law: KindsLikelihood, n_groups: int, seed: int) -> np.ndarray:
    """Return a group for each history, by what is done in which state."""
    from scipy.cluster.vq import kmeans2  # slow to import, and needed for kinds only

    _, _, S, A = law.shape
    histories, rng = law.histories, np.random.default_rng(seed)
    n = len(histories.start)
    place = histories.owner * (S * A) + histories.entry % (S * A)
    done = np.bincount(place, minlength=n * S * A).reshape(n, S * A).astype(float)
    done /= np.maximum(done.sum(1, keepdims=True), 1.0)
    done -= done.mean(0)
    spread = done.std(0)
    moves = spread > 0
    # each start looks at other sides of what is done
    scaled = done[:, moves] / spread[moves] * np.exp(SIDES * rng.standard_normal(moves.sum()))
    if len(np.unique(scaled.round(9), axis=0)) <= n_groups:
        return rng.integers(n_groups, size=n)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a group without members
        return np.asarray(kmeans2(scaled, n_groups, minit="++", rng=rng)[1])
