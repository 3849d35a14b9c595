"""faiss's exact search, timed in a process of its own: its threads and those of a framework do not go together."""

from __future__ import annotations

import json
import sys
from functools import partial

import faiss

from raremem.benchmarks.cost.speed import Case, median_ms


def main(seconds: float, cases: list[Case]) -> list[float]:
    """Milliseconds of each case."""
    taken = []
    for case in cases:
        keys, _, queries, _ = case.data()
        index = faiss.IndexFlatIP(case.key_dim)
        index.add(keys)
        taken.append(median_ms(partial(index.search, queries, case.neighbors), seconds))
    return taken


if __name__ == "__main__":
    print(json.dumps(main(float(sys.argv[1]), [Case(**case) for case in json.loads(sys.argv[2])])))
