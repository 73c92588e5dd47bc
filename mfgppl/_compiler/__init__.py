"""From tensor programs to the tape machine: a record of operations, and its instructions."""
