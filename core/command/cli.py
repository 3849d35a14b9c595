"""The entry point of the command `raremem`. It handles signals first and imports the rest, even NumPy, after that."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; an expected error is one line on standard error and exit status 1 (2 for a wrong command line).

    Without arguments it takes those of the process, and also handles its signals (see `signals`).
    """
    if arguments is None:
        from raremem.command.signals import end_on_signal

        for stream, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
            if getattr(sys, stream) is None:  # it was closed: what is opened next would take its place
                setattr(sys, stream, open(os.devnull, mode))  # noqa: SIM115
        end_on_signal()
    from raremem.command.commands import run

    return run(arguments)


if __name__ == "__main__":
    sys.exit(main())
