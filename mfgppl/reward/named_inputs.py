"""What a reward program reads by name, whatever the crowd does."""

from typing import Any

import torch

from mfgppl.game import MeanFieldGame
from mfgppl.reward.coordinates import Numbers, axis


def named_inputs(game: MeanFieldGame) -> dict[str, Any]:
    """Return time, action, coordinates, types and features by name.

    Each broadcasts to (T, S, A); with types to (C, T, S, A).
    """
    space, lead = game.space, (None,) if game.space.types else ()
    times = torch.arange(game.shape[0], dtype=torch.float64)[:, None, None]
    places = torch.arange(game.shape[0])[:, None, None]
    actions = torch.arange(game.n_actions)[None, None, :]
    named: dict[str, Any] = {
        "time": Numbers(times[lead], "time", codes=places[lead]),
        "action": axis("action", game.actions, actions[lead]),
    }
    if game.periods is not None:
        named["period"] = axis("period", game.periods.labels, places[lead])
    if space.types:
        of_cell = torch.arange(space.n_cells)[:, None, None, None]
        named["type"] = axis("type", space.cells.labels, of_cell)
    for part, where in (
        (space.cells, (slice(None), None, None, None)),
        (space.within, (*lead, None, slice(None), None)),
    ):
        for row, (name, labels) in zip(part.codes, part.coordinates.items(), strict=True):
            named[name] = axis(name, labels, torch.as_tensor(row)[where])
    for name, values in game.features.items():
        named[name] = Numbers(values, name)
    return named
