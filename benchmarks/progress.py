"""Progress: a bar on a terminal, a few plain lines in a log."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TypeVar

Item = TypeVar("Item")


def progress(items: Sequence[Item], title: str) -> Iterator[Item]:
    """The items, one by one, with progress on standard error."""
    if sys.stderr.isatty():
        from tqdm import tqdm

        yield from tqdm(items, desc=title, leave=False)
        return
    every = max(1, len(items) // 5)
    for number, item in enumerate(items):
        yield item
        if (number + 1) % every == 0 or number + 1 == len(items):
            print(f"{title}: {number + 1} of {len(items)}", file=sys.stderr, flush=True)
