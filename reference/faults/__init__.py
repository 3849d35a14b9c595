"""Planted faults: each is one wrong line in the rules, in a search or in a table of primitives, and some law must catch it.

A fault is a text that stands exactly once in a module, and the wrong text to put there. That keeps the list readable as what it
is, a list of mistakes, and a fault whose line is no longer there is an error and not a pass.
"""

from __future__ import annotations

from raremem.reference.faults.later import LATER
from raremem.reference.faults.paper import PAPER
from raremem.reference.faults.planting import Fault, caught_by, holds, planted
from raremem.reference.laws import LAWS

__all__ = ["FAULTS", "Fault", "caught_by", "holds", "planted", "table"]

FAULTS = (*PAPER, *LATER)


def table() -> str:
    """As markdown: every fault, where it stands, and which law catches it."""
    rows = [f"| {fault.name} | {fault.module.removeprefix('raremem.')} | {fault.backend} | {fault.law} |" for fault in FAULTS]
    return "\n".join([
        "# Planted faults\n",
        f"Written by `python -m raremem.reference.faults`: {len(FAULTS)} faults, each a change of one text, and {len(LAWS)} laws.",
        "`tests/test_faults.py` plants each, sees that the law named here breaks, and sees that this page is current. Which others",
        "break, say `list(raremem.reference.faults.caught_by(fault))`.\n",
        "| fault | in | seen with | caught by |",
        "| --- | --- | --- | --- |",
        *rows,
    ])  # fmt: skip
