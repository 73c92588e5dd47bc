"""The report: tables and sections of one page. May import everything but the command line."""
