"""Runs a command line, and turns every expected error into one line on standard error."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence

import raremem
from raremem.command.lines import as_line
from raremem.command.options import parser

NUMBERS = {
    "minutes": (0, 1_000_000, "more than 0, and at most 1,000,000"),
    "seed": (-1, 2**32 - 1, "0 to 4,294,967,295"),
    "examples": (0, 1_000_000, "1 to 1,000,000"),
    "count": (0, 1_000_000, "1 to 1,000,000"),
    "jobs": (0, 1_000, "1 to 1,000"),
}
"""For each numeric option: its exclusive lower bound, its inclusive upper bound, and the range in words."""


def run(arguments: Sequence[str] | None) -> int:
    """Run the command of these arguments, default: those of the process; see `cli.main`."""
    with contextlib.suppress(AttributeError):
        sys.stdout.reconfigure(errors="backslashreplace", line_buffering=True)  # type: ignore[union-attr]
    try:
        try:
            options = parser().parse_args(arguments)
            _check_numbers(options)
            return options.run(options) or 0
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        return _failed("nobody reads the output any more.")
    except (raremem.RarememError, OSError) as error:
        return _failed(str(error))
    except MemoryError as error:
        return _failed(f"this machine has not enough memory ({error or 'MemoryError'}).")
    except KeyboardInterrupt:
        return _failed("interrupted; no file is half-written.", 130)


def _failed(message: str, status: int = 1) -> int:
    """Print the message in one line. Output that cannot be written is dropped, or Python would report it again at exit."""
    with contextlib.suppress(OSError):
        print(f"raremem: {as_line(message)}", file=sys.stderr)
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return status


def _check_numbers(options: argparse.Namespace) -> None:
    for name, (above, most, expected) in NUMBERS.items():
        number = getattr(options, name, None)
        if number is not None and not above < number <= most:
            raise raremem.ConfigError(f"--{name} {number}: expected {expected}.")
