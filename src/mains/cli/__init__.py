"""The command line: parse, ask the daemon, print.

    app                 the Typer application; each file here adds the verbs of one noun
    main(arguments)     run it; ends the Python process with an exit code

Exit codes: 0; what a process exited with, for `run` and `wait`; 3 when that process cannot go on by itself; 2 for bad
input; 1 for everything else. Results go to standard output, everything else to standard error; with `--json`, one
JSON value (or a line for each) and nothing else is on standard output. What is heavy to import is imported where it
is used: most commands only talk to the daemon.
"""

from __future__ import annotations

from mains.cli.verbs import app, main

__all__ = ["app", "main"]
