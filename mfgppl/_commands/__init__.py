"""What the command line does around its work: interrupts, errors, files. Imports no library."""
