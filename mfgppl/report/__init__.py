"""Tables and figures from finished results."""
