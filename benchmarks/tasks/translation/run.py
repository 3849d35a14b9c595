"""Trains the network with its memory, sets the gate and its peers on text held out, and lets all translate the streams."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from raremem.benchmarks.data.corpus import Sentences
from raremem.benchmarks.data.duplicates import near_duplicates
from raremem.benchmarks.data.errors import DataError
from raremem.benchmarks.data.parallel import Stream
from raremem.benchmarks.progress import progress
from raremem.benchmarks.task import Findings, Setting, Task
from raremem.benchmarks.tasks.translation.engine import Sentence, Spoken, run_stream
from raremem.benchmarks.tasks.translation.figures import bleu, measure, sacrebleu
from raremem.benchmarks.tasks.translation.material import Prepared, load
from raremem.benchmarks.tasks.translation.observe import forced
from raremem.benchmarks.tasks.translation.peers import Tuned
from raremem.benchmarks.tasks.translation.report import findings
from raremem.benchmarks.tasks.translation.settle import Kit, Settled, settle
from raremem.benchmarks.tasks.translation.systems import System
from raremem.benchmarks.training.loop import train
from raremem.benchmarks.training.snapshots import TrainingRun, resume
from raremem.benchmarks.training.translator.recipe import TranslationRecipe
from raremem.benchmarks.training.translator.text import StreamTranslator, make_learner

TUNED = "fine-tuning"
WORKERS = 2
"""Threads: most of the time is spent in products, which leave the interpreter free."""


@dataclass(frozen=True)
class Scale:
    """How much is measured.

    Attributes:
        held: sentences of the text held out on which everything is set.
        stream: sentences of each stream that are translated.
        foreign: sentences of all streams that the memory has read before it translates general text.
        general: sentences of that.
    """

    held: int = 1_200
    stream: int = 1_200
    foreign: int = 10_000
    general: int = 1_450


def run(setting: Setting) -> Findings:
    """Train for about `setting.minutes`, and measure.

    Raises:
        ConfigError: there is no text to train on, or to stream.
        DataError: a text is not what it should be.
        MissingPackageError: the framework or the extra `bench` is not installed.
    """
    return run_at(setting, recipe_of(setting), Scale())


def recipe_of(setting: Setting) -> TranslationRecipe:
    """The network and its memory."""
    return TranslationRecipe(mixed=True, key_dim=128, slots=32_768, seed=setting.seed)


def run_at(setting: Setting, recipe: TranslationRecipe, scale: Scale) -> Findings:
    """`run`, with a network and at a scale of one's choice."""
    path = setting.snapshot_path("translation-memory")
    resume(path, asdict(recipe), setting.minutes)
    sacrebleu()
    prepared = Prepared(load(setting), recipe)
    if not prepared.text.epoch(0):
        raise DataError(f"the text to train on has no {recipe.batch} pairs of about one length; expected far more.")
    translator, trained = train(
        lambda steps: make_learner(setting.backend, replace(recipe, steps=steps), prepared.text.sizes),
        prepared.text.batch_at,
        asdict(recipe),
        setting.minutes,
        path,
    )
    return Trial(setting, prepared, translator, scale).findings(trained)


class Trial:
    """A trained network, and what is measured with it.

    Args:
        setting: of the run.
        prepared: the text.
        translator: the network.
        scale: how much is measured.
    """

    def __init__(self, setting: Setting, prepared: Prepared, translator: StreamTranslator, scale: Scale) -> None:
        self.prepared, self.translator, self.scale = prepared, translator, scale
        self.kit = Kit(setting.backend, prepared.text.recipe, prepared.text.counts)

    def findings(self, trained: TrainingRun) -> Findings:
        """Set everything, and measure: two things at a time, each in a thread."""
        started = time.perf_counter()
        settled = self.settled()
        streams = {title: stream[: self.scale.stream] for title, stream in self.prepared.material.streams.items()}
        with ThreadPoolExecutor(WORKERS) as pool:
            frozen = {title: pool.submit(self.frozen, settled, title, stream) for title, stream in streams.items()}
            tuned = {title: pool.submit(self.tuned, settled, title, stream) for title, stream in streams.items()}
            general = pool.submit(self.general, settled).result()
            figures: dict[str, Any] = {"settled": settled.told(), "streams": {}, "general": general}
            for title, stream in streams.items():
                spoken, (further, after) = frozen[title].result(), tuned[title].result()
                figures["streams"][title] = self.figures(stream, spoken | {TUNED: further})
                general["bleu"][f"{TUNED}, after {len(stream):,} sentences of {title}"] = after
        figures["run"], figures["measured in seconds"] = asdict(trained), time.perf_counter() - started
        return findings(figures)

    def settled(self) -> Settled:
        """The gate and the peers, set on the text held out."""
        material, prepared = self.prepared.material, self.prepared
        held, dev = (prepared.sentences(text) for text in (material.held[: self.scale.held], material.dev))
        references = dict(zip(map(id, dev), material.dev.target, strict=True))

        def score(said: list[list[int]], asked: list[Sentence]) -> float:
            return bleu(prepared.decoded(said), [references[id(sentence)] for sentence in asked])

        return settle(self.translator, self.kit, held, dev, score)

    def frozen(self, settled: Settled, title: str, stream: Stream) -> dict[str, Spoken]:
        """What every system with the frozen network makes of a stream."""
        sentences = progress(self.prepared.sentences(stream), title)
        return run_stream(self.translator, settled.systems(self.kit), sentences)

    def tuned(self, settled: Settled, title: str, stream: Stream) -> tuple[Spoken, float]:
        """What the network makes of a stream that is trained on it further, and BLEU on general text after that."""
        network = self.translator.tunable(settled.rate)
        system: dict[str, System] = {TUNED: Tuned(network)}
        spoken = run_stream(network, system, progress(self.prepared.sentences(stream), f"{title}, {TUNED}"))
        return spoken[TUNED], self._everyday(network, system)[TUNED]

    def general(self, settled: Settled) -> dict[str, Any]:
        """General text by the network alone and with memories that have read the streams, as far as `Scale.foreign` goes."""
        streams = self.prepared.material.streams.values()
        most = -(-self.scale.foreign // len(streams))
        text = [sentence for stream in streams for sentence in self.prepared.sentences(stream[:most])]
        systems = {name: system for name, system in settled.systems(self.kit).items() if name != "cache"}
        for sentence in progress(text, "reading foreign text"):
            reading, last, _ = forced(self.translator, sentence)
            for system in systems.values():
                system.read(sentence.source, reading, last, sentence.target)
        return {"sentences read": len(text), "bleu": self._everyday(self.translator, systems)}

    def figures(self, stream: Stream, spoken: dict[str, Spoken]) -> dict[str, Any]:
        """The figures of all systems on a stream."""
        sentences, repeated = self.prepared.sentences(stream), near_duplicates(stream.target)
        return {
            "sentences": len(sentences),
            "near-duplicates": int(repeated.sum()),
            "systems": {name: measure(self.prepared, sentences, stream.target, one, repeated) for name, one in spoken.items()},
            "examples": self._examples(stream, spoken),
        }

    def _everyday(self, network: StreamTranslator, systems: dict[str, System]) -> dict[str, float]:
        """BLEU on general text of systems that have read, and read no more."""
        test: Sentences = self.prepared.material.test[: self.scale.general]
        sentences = self.prepared.sentences(test)
        spoken = run_stream(network, systems, progress(sentences, "general text"), reads=False)
        return {name: bleu(self.prepared.decoded(one.said), test.target) for name, one in spoken.items()}

    def _examples(self, stream: Stream, spoken: dict[str, Spoken], most: int = 12) -> list[dict[str, Any]]:
        """Sentences in which the memory gave most words, each word with the sentence that it came from."""
        memory, alone = spoken["memory"], spoken["alone"]
        given = [len(origins) / (len(said) + 4) for origins, said in zip(memory.origins, memory.said, strict=True)]
        scores = np.array([_overlap(said, right) for said, right in zip(*self._pairs(memory, stream), strict=True)])
        chosen = np.argsort(-(np.minimum(given, 0.6) * scores), kind="stable")[: 4 * most : 4]
        return [
            {
                "sentence": int(row) + 1,
                "source": stream.source[row],
                "reference": stream.target[row],
                "memory": self.prepared.decoded([memory.said[row]])[0],
                "alone": self.prepared.decoded([alone.said[row]])[0],
                "words": self._origins(stream, memory, int(row)),
            }
            for row in sorted(chosen.tolist())
        ]

    def _pairs(self, spoken: Spoken, stream: Stream) -> tuple[list[str], list[str]]:
        return self.prepared.decoded(spoken.said), stream.target

    def _origins(self, stream: Stream, memory: Spoken, row: int) -> list[list[Any]]:
        """Each run of tokens that the memory has from one sentence: its text, that sentence's number, and it."""
        runs: list[tuple[int, list[int]]] = []
        end = -1
        for place, sentence in memory.origins[row]:
            if runs and runs[-1][0] == sentence and place == end + 1:
                runs[-1][1].append(memory.said[row][place])
            else:
                runs.append((sentence, [memory.said[row][place]]))
            end = place
        texts = self.prepared.decoded([tokens for _, tokens in runs])
        return [
            [text, sentence + 1, stream.source[sentence], stream.target[sentence]]
            for text, (sentence, _) in zip(texts, runs, strict=True)
        ]


def _overlap(said: str, right: str) -> float:
    """How many of the words of both are in both."""
    one, other = set(said.split()), set(right.split())
    return len(one & other) / max(len(one | other), 1) if len(other) > 4 else 0.0


TASK = Task(
    "English to German by a network that goes on learning through its memory while it translates",
    "the extra bench and a framework; text by --data, or by --train and --stream; --minutes of training, then as long again",
    30.0,
    run,
    backends=("torch",),
)
