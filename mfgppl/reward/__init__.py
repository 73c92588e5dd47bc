"""Reward programs and what they see."""
