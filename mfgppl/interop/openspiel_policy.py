"""A policy of OpenSpiel by observation string; imported only where OpenSpiel is there."""

from typing import Any

from open_spiel.python.policy import Policy


class RowPolicy(Policy):
    """A policy with the action probabilities of each observation string.

    Parameters
    ----------
    game : pyspiel.Game
        The game.
    rows : dict of str to dict of int to float
        For each observation string, the probability of each legal action.
    """

    def __init__(self, game: Any, rows: dict[str, dict[int, float]]) -> None:
        super().__init__(game, list(range(game.num_players())))
        self._rows = rows

    def action_probabilities(self, state: Any, player_id: int | None = None) -> dict[int, float]:
        """Return the probability of each legal action in a state."""
        return dict(self._rows[str(state.observation_string(0))])
