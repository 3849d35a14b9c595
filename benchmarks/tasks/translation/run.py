"""Trains the network with its memory, sets the gate and its peers on text held out, and lets all translate the streams."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from raremem.benchmarks.data.bleu import bleu, sacrebleu
from raremem.benchmarks.data.corpus import Sentences
from raremem.benchmarks.data.duplicates import near_duplicates
from raremem.benchmarks.data.errors import DataError
from raremem.benchmarks.data.parallel import Stream
from raremem.benchmarks.progress import progress
from raremem.benchmarks.task import Findings, Setting, Task
from raremem.benchmarks.tasks.translation.engine import Sentence, Spoken, run_stream
from raremem.benchmarks.tasks.translation.figures import measure
from raremem.benchmarks.tasks.translation.material import Prepared, load
from raremem.benchmarks.tasks.translation.observe import forced
from raremem.benchmarks.tasks.translation.peers import Tuned
from raremem.benchmarks.tasks.translation.report import findings
from raremem.benchmarks.tasks.translation.settle import Kit, Settled, settle
from raremem.benchmarks.tasks.translation.source import tokens_of
from raremem.benchmarks.tasks.translation.systems import System
from raremem.benchmarks.training.loop import train
from raremem.benchmarks.training.snapshots import TrainingRun, resume
from raremem.benchmarks.training.translator.recipe import TranslationRecipe
from raremem.benchmarks.training.translator.text import StreamTranslator, make_learner
from raremem.files import replace_file

TUNED = "fine-tuning"
LEAST_SLOTS = 256


@dataclass(frozen=True)
class Scale:
    """How much is measured.

    Attributes:
        held: sentences of the text held out on which everything is set.
        stream: sentences of each stream that are translated.
        foreign: sentences of all streams that the memory has read before it translates general text.
        general: sentences of that.
    """

    held: int = 800
    stream: int = 800
    foreign: int = 10_000
    general: int = 1_000


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
    return Trial(setting, prepared, translator, scale, trained.done).findings(trained)


class Trial:
    """A trained network, and what is measured with it.

    Args:
        setting: of the run.
        prepared: the text.
        translator: the network.
        scale: how much is measured.
        batches: that the network was trained on.
    """

    def __init__(self, setting: Setting, prepared: Prepared, translator: StreamTranslator, scale: Scale, batches: int) -> None:
        self.setting, self.prepared, self.translator, self.scale, self.batches = setting, prepared, translator, scale, batches
        self.streams = {title: stream[: scale.stream] for title, stream in prepared.material.streams.items()}

    def findings(self, trained: TrainingRun) -> Findings:
        """Set everything, and measure."""
        figures: dict[str, Any] = {"settled": self.settled().told(), "streams": {}, "general": self.part("general")}
        for title, stream in self.streams.items():
            frozen, tuned = self.part("frozen", title), self.part("tuned", title)
            spoken = {name: Spoken(**one) for name, one in (frozen["spoken"] | tuned["spoken"]).items()}
            after = frozen["general"] | tuned["general"]
            figures["streams"][title] = self.figures(stream, spoken) | {"general text after": after}
        figures["run"] = asdict(trained)
        return findings(figures)

    def part(self, name: str, *title: str) -> Any:
        """What a method of that name measures. It is kept beside the snapshot: a run that was stopped goes on after it."""
        path = self.setting.snapshot_path(f"translation-{'-'.join([name, *map(str, map(list(self.streams).index, title))])}")
        path, asked = path.with_suffix(".part"), asdict(self.scale) | {"batches": self.batches, "title": list(title)}
        if path.exists():
            found = json.loads(path.read_text(encoding="utf-8"))
            if found["asked"] == asked:
                return found["measured"]
        measured = getattr(self, name)(*title)
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, json.dumps({"asked": asked, "measured": measured}).encode())
        return measured

    def settled(self) -> Settled:
        """The gate and the peers, set on the text held out."""
        return Settled.of(self.part("setting_up"))

    def setting_up(self) -> dict[str, Any]:
        """The same, as JSON can hold it."""
        material, prepared = self.prepared.material, self.prepared
        held, dev = (prepared.sentences(text) for text in (material.held[: self.scale.held], material.dev))
        references = dict(zip(map(id, dev), material.dev.target, strict=True))

        def score(said: list[list[int]], asked: list[Sentence]) -> float:
            return bleu(prepared.decoded(said), [references[id(sentence)] for sentence in asked])

        return settle(self.translator, self.kit(held), held, dev, score).plain()

    def frozen(self, title: str) -> dict[str, Any]:
        """What every system with the frozen network makes of a stream, and BLEU on general text after it."""
        sentences = self.prepared.sentences(self.streams[title])
        systems = self.settled().systems(self.kit(sentences))
        spoken = run_stream(self.translator, systems, progress(sentences, title))
        return {
            "spoken": {name: asdict(one) for name, one in spoken.items()},
            "general": self._everyday(self.translator, systems),
        }

    def tuned(self, title: str) -> dict[str, Any]:
        """The same of the network that is trained further on each sentence."""
        network = self.translator.tunable(self.settled().rate)
        system: dict[str, System] = {TUNED: Tuned(network)}
        sentences = self.prepared.sentences(self.streams[title])
        spoken = run_stream(network, system, progress(sentences, f"{title}, {TUNED}"))
        return {"spoken": {TUNED: asdict(spoken[TUNED])}, "general": self._everyday(network, system)}

    def general(self) -> dict[str, Any]:
        """General text by the network alone and with a memory that has read the streams, as far as `Scale.foreign` goes."""
        streams = self.prepared.material.streams.values()
        most = -(-self.scale.foreign // len(streams))
        text = [sentence for stream in streams for sentence in self.prepared.sentences(stream[:most])]
        systems = self.settled().systems(self.kit(text))
        systems = {name: systems[name] for name in ("alone", "memory")}
        for sentence in progress(text, "reading foreign text"):
            reading, last, _ = forced(self.translator, sentence)
            systems["memory"].read(sentence.source, reading, last, sentence.target)
        return {"sentences read": len(text), "bleu": self._everyday(self.translator, systems)}

    def kit(self, text: list[Sentence]) -> Kit:
        """What systems are made of that have a slot for each token of a text: as many, or up to twice as many."""
        tokens = sum(len(tokens_of(sentence.target)) for sentence in text)
        slots = 2 ** max(tokens, LEAST_SLOTS).bit_length()
        return Kit(self.setting.backend, self.prepared.text.recipe, self.prepared.text.counts, slots, slots)

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
        """Sentences of which the memory gave many words and said most as the reference does, spread over the stream; each word
        with the sentence that it came from."""
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
)
