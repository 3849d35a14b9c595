"""What a sentence costs: translated by the network alone and with a memory of many sizes, and read."""

from __future__ import annotations

import statistics
import time
from dataclasses import replace
from typing import Any

import numpy as np

from raremem.benchmarks.tasks.translation.engine import Sentence, read_through, translate
from raremem.benchmarks.tasks.translation.settle import Kit, Settled
from raremem.benchmarks.tasks.translation.systems import Alone, System
from raremem.benchmarks.training.translator.text import StreamTranslator
from raremem.registry import get_index
from raremem.state import PortableState

INDEX = "faiss"
"""What is asked beside exact search, where the framework takes an index. It is built before the first sentence."""


def costs(
    translator: StreamTranslator, kit: Kit, settled: Settled, sentences: list[Sentence], tokens: int, sizes: tuple[int, ...]
) -> list[dict[str, Any]]:
    """Median milliseconds a sentence, by size of the memory and way of searching.

    The memory of tokens is full of random unit keys: what they are does not matter to exact search, and is the hardest case of
    an index. The memory of words is empty.

    Args:
        translator: the network.
        kit: what systems are made of.
        settled: the gate.
        sentences: that are translated and read, each once.
        tokens: of the target language.
        sizes: slots of the memory.

    Returns:
        A dict for the network alone and for each memory: `slots`, `search`, `translate`, `read`; None: there is none.
    """
    indexes = (None, INDEX) if kit.backend == "torch" else (None,)
    rows: list[dict[str, Any]] = [{"slots": None, "search": None} | _timed(translator, Alone(), sentences)]
    for slots in sizes:
        for index in indexes:
            options = {"index": get_index(index, background=False)} if index else {}
            memory = replace(kit, slots=slots, options=options).remembering(settled.gate)
            memory.store.fill(_random_content(slots, kit.recipe.key_dim, tokens))
            rows.append({"slots": slots, "search": index or "exact"} | _timed(translator, memory, sentences))
    return rows


def _random_content(slots: int, key_dim: int, tokens: int) -> PortableState:
    generator = np.random.default_rng(slots)
    keys = generator.normal(size=(slots, key_dim)).astype(np.float32)
    keys /= np.linalg.norm(keys, axis=1, keepdims=True)
    values = generator.integers(0, tokens, slots).astype(np.int32)
    return {"keys": keys, "values": values, "ages": np.arange(slots), "filled": np.ones(slots, np.bool_), "step": slots}


def _timed(translator: StreamTranslator, system: System, sentences: list[Sentence]) -> dict[str, float]:
    """The first sentence is not counted: a program or an index may be made for it."""
    taken = []
    for sentence in sentences:
        started = time.perf_counter()
        translate(translator, {"": system}, sentence.source, translator.opened(sentence.source.tokens[None]))
        translated = time.perf_counter()
        read_through(translator, {"": system}, [sentence])
        taken.append((translated - started, time.perf_counter() - translated))
    asked, read = (1000 * statistics.median(times[1:]) for times in zip(*taken, strict=True))
    return {"translate": asked, "read": read}
