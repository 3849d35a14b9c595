"""CLINC150 and Banking77: questions and their intents, from a folder that has the official files, or the same in .gz."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import NamedTuple

from raremem.benchmarks.data.errors import DataError
from raremem.benchmarks.data.text import read_lines

CLINC = ("data_full.json", "clinc150_data_full.json.gz")
BANKING = (("train.csv", "banking77_train.csv.gz"), ("test.csv", "banking77_test.csv.gz"))


class Questions(NamedTuple):
    """Questions, and the intent of each."""

    texts: list[str]
    intents: list[str]


class Intents(NamedTuple):
    """A data set: questions to learn, to choose by and to test with, and questions of no intent.

    Attributes:
        train, val, test: of the same intents. Banking77 has no `val`: it is empty.
        unknown: of no intent, for the test; Banking77 has none.
    """

    train: Questions
    val: Questions
    test: Questions
    unknown: Questions


def load_clinc(folder: Path) -> Intents:
    """CLINC150 (Larson et al., 2019), `data_full`.

    Raises:
        DataError: it is not in the folder, or is not what it should be.
    """
    path = _find(folder, CLINC)
    try:
        parts = json.loads("\n".join(read_lines(path, "CLINC150's data_full.json")))
        train, val, test, unknown = (_questions(parts[name]) for name in ("train", "val", "test", "oos_test"))
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is no data_full.json of CLINC150 ({error!r}).") from error
    return Intents(train, val, test, unknown)


def load_banking(folder: Path) -> Intents:
    """Banking77 (Casanueva et al., 2020).

    Raises:
        DataError: it is not in the folder, or is not what it should be.
    """
    parts = []
    for names in BANKING:
        path = _find(folder, names)
        rows = list(csv.reader(line + "\n" for line in read_lines(path, "a CSV of Banking77")))
        if rows[0] != ["text", "category"] or any(len(row) != 2 for row in rows):
            raise DataError(f"{path} is no CSV of Banking77: expected the columns text and category.")
        parts.append(_questions(rows[1:]))
    return Intents(parts[0], Questions([], []), parts[1], Questions([], []))


def _questions(rows: list[list[str]]) -> Questions:
    texts, intents = zip(*((text, intent) for text, intent in rows), strict=True)
    return Questions(list(texts), list(intents))


def _find(folder: Path, names: tuple[str, ...]) -> Path:
    """The first file of one of these names in the folder, or in folders of it."""
    found = [path for name in names for path in sorted(folder.rglob(name))]
    if not found:
        raise DataError(f"{folder} has no {' or '.join(names)}; see --data download.")
    return found[0]
