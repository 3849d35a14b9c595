"""BLEU against slots: what a memory that is too small for a stream still gives, by how it writes and what it gives up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from raremem.benchmarks.progress import progress
from raremem.benchmarks.tasks.translation.engine import Sentence, read_through
from raremem.benchmarks.tasks.translation.settle import Kit, Settled
from raremem.benchmarks.tasks.translation.source import tokens_of
from raremem.benchmarks.tasks.translation.systems import System
from raremem.benchmarks.training.translator.text import StreamTranslator

LEAST = 64
WORDS = 0.25
"""The part of the slots that the memory of words has."""
WAYS = {
    "merge, the oldest goes": ("merge", "oldest"),
    "merge, the least hit goes": ("merge", "least_hit"),
    "keep, the oldest goes": ("keep", "oldest"),
}
"""How the memory of tokens writes, and which slot it gives up when none is empty."""


def by_slots(
    translator: StreamTranslator,
    kit: Kit,
    settled: Settled,
    stream: list[Sentence],
    parts: tuple[float, ...],
    few: int,
    score: Callable[[list[list[int]], list[int]], float],
) -> list[dict[str, Any]]:
    """BLEU in the last quarter of a stream, by method and slots.

    Args:
        translator: the network.
        kit: what systems are made of.
        settled: the gate and the peers.
        stream: all of it is read, its last quarter is translated.
        parts: of the tokens of the stream: so many slots, at least `LEAST`.
        few: slots, beside those.
        score: BLEU of translations, as tokens, of the sentences of those numbers.

    Returns:
        A dict for each method and size: `method`, `slots`, `tokens` of the stream, `bleu`.
    """
    tokens = sum(len(tokens_of(sentence.target)) for sentence in stream)
    asked = range(3 * len(stream) // 4, len(stream))
    systems: dict[tuple[str, int], System] = {}
    for slots in sorted({max(LEAST, round(part * tokens)) for part in parts} | {few}, reverse=True):
        words = round(WORDS * slots)
        small = replace(kit, slots=slots - words, word_slots=words)
        for name, (write, evict) in WAYS.items():
            systems[name, slots] = small.remembering(settled.gate, write, evict)
        systems |= {(name, slots): one for name, one in settled.keeping(replace(kit, slots=slots)).items()}
    named = {f"{name}, {slots}": system for (name, slots), system in systems.items()}
    said = read_through(translator, named, progress(stream, "by slots"), asked)
    return [
        {
            "method": name,
            "slots": slots,
            "tokens": tokens,
            "bleu": score([said[f"{name}, {slots}"][row] for row in asked], list(asked)),
        }
        for name, slots in systems
    ]
