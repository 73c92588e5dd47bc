"""Panels: reading, checking, counting."""
