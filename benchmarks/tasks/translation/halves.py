"""The paper's test: half of a text is read, and the other half is translated before and after."""

from __future__ import annotations

from typing import Any

import numpy as np

from raremem.benchmarks.data.bleu import bleu
from raremem.benchmarks.data.corpus import word_recall, words
from raremem.benchmarks.data.parallel import Stream
from raremem.benchmarks.tasks.translation.engine import read_through, run_stream
from raremem.benchmarks.tasks.translation.material import Prepared
from raremem.benchmarks.tasks.translation.systems import System
from raremem.benchmarks.training.translator.text import StreamTranslator

SEEN = ((0, 0), (1, 10))
"""First and last of how often training has the words that are counted: new words, and rare ones."""


def half_and_half(
    translator: StreamTranslator, memory: System, prepared: Prepared, text: Stream, seed: int
) -> dict[str, dict[str, Any]]:
    """Translate a half of a text, drawn at random, before and after the other half is read (paper, section 4.3).

    Args:
        translator: the network.
        memory: with nothing read.
        prepared: the text that the network was trained on.
        text: to be halved.
        seed: of the draw.

    Returns:
        For "before" and "after": `bleu`, and `words`, as `word_recall` counts those that stand in both halves (by `SEEN`).
    """
    order = np.random.default_rng([seed, 8]).permutation(len(text))
    read, asked = np.sort(order[: len(text) // 2]), np.sort(order[len(text) // 2 :])
    sentences, references = prepared.sentences(text), [text.target[row] for row in asked]
    both = {word for row in read for word in words(text.target[row])}

    def measured() -> dict[str, Any]:
        spoken = run_stream(translator, {"memory": memory}, [sentences[row] for row in asked], reads=False)["memory"]
        said = prepared.decoded(spoken.said)
        return {"bleu": bleu(said, references), "words": word_recall(prepared.seen, SEEN, said, references, both)}

    before = measured()
    read_through(translator, {"memory": memory}, [sentences[row] for row in read])
    return {"before": before, "after": measured()}
