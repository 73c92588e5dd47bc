"""The colours of all figures."""

INK = "#1f3a5f"  # estimates and curves
BAND = "#9db8d9"  # intervals
DOT = "#c2452d"  # what is observed or true, and what is off
GREY = "#5b6b7b"  # lines of reference and headings
RULE, PAPER = "#d9e0e7", "#e9ecf0"  # thin lines, and grounds
GREEN, AMBER, PURPLE = "#2a7f62", "#d99a2b", "#7a5195"  # further curves
