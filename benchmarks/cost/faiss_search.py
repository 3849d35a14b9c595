"""Times faiss's exact search in a process of its own, since its threads conflict with those of a framework."""

from __future__ import annotations

import json
import sys
from functools import partial

import faiss

from raremem.benchmarks.cost.timing import median_ms
from raremem.benchmarks.cost.workload import Workload


def main(seconds: float, workloads: list[Workload]) -> list[float]:
    """Milliseconds of each workload."""
    taken = []
    for workload in workloads:
        keys, _, queries, _ = workload.data()
        index = faiss.IndexFlatIP(workload.key_dim)
        index.add(keys)
        taken.append(median_ms(partial(index.search, queries[0], workload.neighbors), seconds))
    return taken


if __name__ == "__main__":
    print(json.dumps(main(float(sys.argv[1]), [Workload(**sizes) for sizes in json.loads(sys.argv[2])])))
