"""All classes known from the start: accuracy, out-of-scope questions told from others, and refused."""

from __future__ import annotations

import time
from collections import defaultdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raremem.benchmarks.progress import progress
from raremem.benchmarks.tasks.intents.contenders import contenders
from raremem.benchmarks.tasks.intents.embeddings import Embedded, draw

REFUSED = 0.05
"""The share of known questions that may be refused."""

Figures = dict[str, dict[str, list[float]]]
"""By contender and figure, one number a draw."""


def few_shot(data: Embedded, shots: int, draws: int, seed: int, backend: str, title: str) -> Figures:
    """Every contender on the same rows of each intent, drawn anew each time.

    "accuracy" is of the test questions, in %. "AUROC" is of telling those from the unknown ones. "known refused" and "unknown
    refused", in %, are at the threshold that refuses 5 % of the validation questions. "seconds" are those to learn.
    """
    found: Figures = defaultdict(lambda: defaultdict(list))
    for number in progress(range(draws), title):
        part = draw(data.train, shots, seed + number)
        for name, learn in contenders(backend, seed + number).items():
            started = time.process_time()
            ask = learn(part)
            mine = found[name]
            mine["seconds"].append(time.process_time() - started)
            answers, known = ask(data.test.rows)
            mine["accuracy"].append(100 * float((answers == data.test.labels).mean()))
            if len(data.unknown.rows):
                unknown = ask(data.unknown.rows)[1]
                mine["AUROC"].append(auroc(known, unknown))
                threshold = np.quantile(ask(data.val.rows)[1], REFUSED, method="lower")
                mine["known refused"].append(100 * float((known < threshold).mean()))
                mine["unknown refused"].append(100 * float((unknown < threshold).mean()))
    return {name: dict(figures) for name, figures in found.items()}


def auroc(known: NDArray[Any], unknown: NDArray[Any]) -> float:
    """The chance that a known row is better known than an unknown one; ties count half."""
    from sklearn.metrics import roc_auc_score

    marks = np.repeat([1, 0], [len(known), len(unknown)])
    return float(roc_auc_score(marks, np.concatenate([known, unknown])))
