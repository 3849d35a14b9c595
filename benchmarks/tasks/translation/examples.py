"""Sentences of a stream with what the memory gave, and where it has it from."""

from __future__ import annotations

from typing import Any

import numpy as np

from raremem.benchmarks.data.parallel import Stream
from raremem.benchmarks.tasks.translation.engine import Spoken
from raremem.benchmarks.tasks.translation.material import Prepared

MOST = 12


def examples(prepared: Prepared, stream: Stream, memory: Spoken, alone: Spoken) -> list[dict[str, Any]]:
    """Sentences of which the memory gave many words and said most as the reference does, spread over the stream; each word with
    the sentence that it came from.

    Args:
        prepared: decodes tokens.
        stream: its sentences.
        memory: what was said with the memory.
        alone: what the network alone said.
    """
    said = prepared.decoded(memory.said)
    given = [len(origins) / (len(tokens) + 4) for origins, tokens in zip(memory.origins, memory.said, strict=True)]
    scores = np.array([_overlap(*pair) for pair in zip(said, stream.target, strict=True)])
    chosen = np.argsort(-(np.minimum(given, 0.6) * scores), kind="stable")[: 4 * MOST : 4]
    return [
        {
            "sentence": int(row) + 1,
            "source": stream.source[row],
            "reference": stream.target[row],
            "memory": said[row],
            "alone": prepared.decoded([alone.said[row]])[0],
            "words": _origins(prepared, stream, memory, int(row)),
        }
        for row in sorted(chosen.tolist())
    ]


def _origins(prepared: Prepared, stream: Stream, memory: Spoken, row: int) -> list[list[Any]]:
    """Each run of tokens that the memory has from one sentence: its text, that sentence's number, and it."""
    runs: list[tuple[int, list[int]]] = []
    end = -1
    for place, sentence in memory.origins[row]:
        if runs and runs[-1][0] == sentence and place == end + 1:
            runs[-1][1].append(memory.said[row][place])
        else:
            runs.append((sentence, [memory.said[row][place]]))
        end = place
    texts = prepared.decoded([tokens for _, tokens in runs])
    return [
        [text, sentence + 1, stream.source[sentence], stream.target[sentence]]
        for text, (sentence, _) in zip(texts, runs, strict=True)
    ]


def _overlap(said: str, right: str) -> float:
    """How many of the words of both are in both."""
    one, other = set(said.split()), set(right.split())
    return len(one & other) / max(len(one | other), 1) if len(other) > 4 else 0.0
