"""The command `mfgppl`, which is `python -m mfgppl` as well."""

import sys

from mfgppl._commands import interrupts


def main() -> None:
    """Run the command line; whatever happens ends in at most one line and an exit code."""
    try:
        interrupts.watch()
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")  # labels in any alphabet
        from mfgppl.cli import main as commands

        commands(prog_name="mfgppl")
    except KeyboardInterrupt:
        interrupts.end()
    except SystemExit as end:
        if end.code == interrupts.EXIT_CODE:
            interrupts.end()
        raise
    except BaseException as error:
        if not interrupts.seen():
            raise
        del error
        interrupts.end()


if __name__ == "__main__":
    main()
