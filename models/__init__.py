"""The gallery: one file a game, with its panel's columns, `game`, `reward` and `model`."""
