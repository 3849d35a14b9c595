"""BLEU."""

from __future__ import annotations

import importlib
from typing import Any

from raremem.benchmarks.packages import need


def bleu(translations: list[str], references: list[str]) -> float:
    """BLEU of a corpus, as sacreBLEU has it by default (13a tokens, cased).

    Raises:
        MissingPackageError: sacrebleu is not installed.
    """
    return sacrebleu().corpus_bleu(translations, [references]).score


def sacrebleu() -> Any:
    """The package.

    Raises:
        MissingPackageError: it is not installed.
    """
    need("translation", "sacrebleu")
    return importlib.import_module("sacrebleu")
