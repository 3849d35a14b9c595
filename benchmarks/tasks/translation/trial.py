"""What is measured with a trained network, part by part. Each part is kept: a run that was stopped goes on after it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from raremem.benchmarks.data.bleu import bleu
from raremem.benchmarks.data.corpus import Sentences
from raremem.benchmarks.data.duplicates import near_duplicates
from raremem.benchmarks.data.parallel import Stream
from raremem.benchmarks.progress import progress
from raremem.benchmarks.task import Setting
from raremem.benchmarks.tasks.translation.costs import costs
from raremem.benchmarks.tasks.translation.engine import Sentence, Spoken, read_through, run_stream
from raremem.benchmarks.tasks.translation.examples import examples
from raremem.benchmarks.tasks.translation.figures import measure
from raremem.benchmarks.tasks.translation.halves import half_and_half
from raremem.benchmarks.tasks.translation.material import Prepared
from raremem.benchmarks.tasks.translation.peers import Tuned
from raremem.benchmarks.tasks.translation.settle import Kit, Settled, settle
from raremem.benchmarks.tasks.translation.slots import by_slots
from raremem.benchmarks.tasks.translation.source import tokens_of
from raremem.benchmarks.tasks.translation.systems import Alone, System
from raremem.benchmarks.tasks.translation.words import by_lag, follow, shown_once
from raremem.benchmarks.training.loop import train
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
        after: sentences of general text that every system translates after a stream.
        tuned: sentences of the text held out that tell the rate of fine-tuning.
        parts: slots of the memories that are too small for a stream, as parts of its tokens.
        few: slots of the smallest of them.
        sizes: slots of the memories whose cost is measured.
    """

    held: int = 4_800
    stream: int = 800
    foreign: int = 10_000
    general: int = 1_000
    after: int = 400
    tuned: int = 150
    parts: tuple[float, ...] = (1.0, 0.5, 0.1)
    few: int = 1_000
    sizes: tuple[int, ...] = (10_000, 100_000, 1_000_000)


def plain(content: Any) -> Any:
    """As JSON gives it back: lists for tuples."""
    return json.loads(json.dumps(content))


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

    def figures(self) -> dict[str, Any]:
        """Set everything, and measure all parts."""
        figures: dict[str, Any] = {"settled": self.settled().told(), "streams": {}, "general": self.part("general")}
        for title, stream in self.streams.items():
            frozen, tuned = self.part("frozen", title), self.part("tuned", title)
            spoken = {name: Spoken(**one) for name, one in (frozen["spoken"] | tuned["spoken"]).items()}
            figures["streams"][title] = self.measured(stream, spoken) | {
                "general text after": frozen["general"] | tuned["general"],
                "slots": self.part("slots", title),
                "halves": self.part("halves", title),
            }
        return figures | {"costs": self.part("costs"), "networks": self.part("networks")}

    def part(self, name: str, *title: str) -> Any:
        """What a method of that name measures. It is kept beside the snapshot: a run that was stopped goes on after it."""
        path = self.setting.snapshot_path(f"translation-{'-'.join([name, *map(str, map(list(self.streams).index, title))])}")
        path, asked = (
            path.with_suffix(".part"),
            json.loads(json.dumps(asdict(self.scale) | {"batches": self.batches, "title": title})),
        )
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

        return settle(self.translator, self.kit(held), held, dev, self.scale.tuned, score).plain()

    def frozen(self, title: str) -> dict[str, Any]:
        """What every system with the frozen network makes of a stream, and BLEU on general text after it."""
        sentences = self.prepared.sentences(self.streams[title])
        systems = self.settled().systems(self.kit(sentences))
        spoken = run_stream(self.translator, systems, progress(sentences, title))
        return {
            "spoken": {name: asdict(one) for name, one in spoken.items()},
            "general": self._everyday(self.translator, systems, self.scale.after),
        }

    def tuned(self, title: str) -> dict[str, Any]:
        """The same of the network that is trained further on each sentence."""
        network = self.translator.tunable(self.settled().rate)
        system: dict[str, System] = {TUNED: Tuned(network)}
        sentences = self.prepared.sentences(self.streams[title])
        spoken = run_stream(network, system, progress(sentences, f"{title}, {TUNED}"))
        return {"spoken": {TUNED: asdict(spoken[TUNED])}, "general": self._everyday(network, system, self.scale.after)}

    def general(self) -> dict[str, Any]:
        """The network alone, and with a memory that reads the streams, as far as `Scale.foreign` goes: new words that were
        shown once, by how long ago, and BLEU of general text after all."""
        streams = self.prepared.material.streams
        most = -(-self.scale.foreign // len(streams))
        texts = {title: self.prepared.sentences(stream[:most]) for title, stream in streams.items()}
        text = [sentence for sentences in texts.values() for sentence in sentences]
        systems: dict[str, System] = {"alone": Alone(), "memory": self.kit(text).remembering(self.settled().gate)}
        lags = {}
        for title, sentences in texts.items():
            references = streams[title].target[:most]
            asked = shown_once(self.prepared.seen, references)
            said = read_through(self.translator, systems, progress(sentences, f"reading {title}"), set(asked))
            lags[title] = {name: self._by_lag(references, one) for name, one in said.items()}
        return {"sentences read": len(text), "lags": lags, "bleu": self._everyday(self.translator, systems, self.scale.general)}

    def slots(self, title: str) -> list[dict[str, Any]]:
        """BLEU in the last quarter of a stream against slots."""
        stream = self.streams[title]
        sentences = self.prepared.sentences(stream)

        def score(said: list[list[int]], rows: list[int]) -> float:
            return bleu(self.prepared.decoded(said), [stream.target[row] for row in rows])

        return by_slots(
            self.translator, self.kit(sentences), self.settled(), sentences, self.scale.parts, self.scale.few, score
        )

    def halves(self, title: str) -> dict[str, Any]:
        """Half of a stream translated before and after the other half is read."""
        stream = self.streams[title]
        memory = self.kit(self.prepared.sentences(stream)).remembering(self.settled().gate)
        return half_and_half(self.translator, memory, self.prepared, stream, self.setting.seed)

    def costs(self) -> list[dict[str, Any]]:
        """Milliseconds a sentence."""
        sentences = self.prepared.sentences(next(iter(self.streams.values()))[:40])
        tokens = self.prepared.text.sizes[1]
        return costs(self.translator, self.kit(sentences), self.settled(), sentences, tokens, self.scale.sizes)

    def networks(self) -> dict[str, dict[str, float]]:
        """BLEU, by text, of the network by itself, as it was trained with its memory, and of one trained as long without."""
        text = self.prepared.text
        recipe = replace(text.recipe, memory=False)
        other, _ = train(
            lambda steps: make_learner(self.setting.backend, replace(recipe, steps=steps), text.sizes),
            text.batch_at,
            asdict(recipe),
            self.setting.minutes,
            self.setting.snapshot_path("translation-plain"),
            steps=self.batches,
        )
        both = {"trained with a memory": self.translator, "trained without": other}
        texts: dict[str, Sentences] = {"general text": self.prepared.material.test[: self.scale.general], **self.streams}
        return {
            title: {name: bleu(text.translate(network, asked), asked.target) for name, network in both.items()}
            for title, asked in texts.items()
        }

    def kit(self, text: list[Sentence]) -> Kit:
        """What systems are made of that have a slot for each token of a text: as many, or up to twice as many."""
        tokens = sum(len(tokens_of(sentence.target)) for sentence in text)
        slots = 2 ** max(tokens, LEAST_SLOTS).bit_length()
        return Kit(self.setting.backend, self.prepared.text.recipe, self.prepared.text.counts, slots, slots)

    def measured(self, stream: Stream, spoken: dict[str, Spoken]) -> dict[str, Any]:
        """The figures of all systems on a stream."""
        sentences, repeated = self.prepared.sentences(stream), near_duplicates(stream.target)
        return {
            "sentences": len(sentences),
            "near-duplicates": int(repeated.sum()),
            "systems": {name: measure(self.prepared, sentences, stream.target, one, repeated) for name, one in spoken.items()},
            "examples": examples(self.prepared, stream, spoken["memory"], spoken["alone"]),
        }

    def _by_lag(self, references: list[str], said: dict[int, list[int]]) -> list[dict[str, Any]]:
        """New words shown once, in the sentences that were translated."""
        translations = [""] * len(references)
        for row, text in zip(said, self.prepared.decoded(list(said.values())), strict=True):
            translations[row] = text
        left_out = ~np.isin(np.arange(len(references)), list(said))
        return by_lag(follow(self.prepared.seen, references, translations), left_out)

    def _everyday(self, network: StreamTranslator, systems: dict[str, System], count: int) -> dict[str, float]:
        """BLEU on so many sentences of general text of systems that have read, and read no more."""
        test: Sentences = self.prepared.material.test[:count]
        sentences = self.prepared.sentences(test)
        spoken = run_stream(network, systems, progress(sentences, "general text"), reads=False)
        return {name: bleu(self.prepared.decoded(one.said), test.target) for name, one in spoken.items()}
