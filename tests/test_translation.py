"""A stream that is translated while it is learned from: the order of things, the notes of the slots, the gate, a whole run."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from raremem import MemoryConfig
from raremem.benchmarks.data.corpus import END, START, Corpus, Sentences
from raremem.benchmarks.data.errors import DataError
from raremem.benchmarks.data.parallel import Stream
from raremem.benchmarks.task import Setting
from raremem.benchmarks.tasks.translation import gate, run
from raremem.benchmarks.tasks.translation.engine import cut, run_stream, sentences
from raremem.benchmarks.tasks.translation.evidence import Evidence
from raremem.benchmarks.tasks.translation.lexicon import KEY_DIM, LONGEST_WORD, Lexicon, _begun, aligned
from raremem.benchmarks.tasks.translation.material import HELD, hold_out
from raremem.benchmarks.tasks.translation.notes import Notes
from raremem.benchmarks.tasks.translation.peers import Cache, KnnMt, _choice, adaptive_features, learn_adaptive, softened
from raremem.benchmarks.tasks.translation.settle import Kit
from raremem.benchmarks.tasks.translation.source import SourceWords, random_rows
from raremem.benchmarks.tasks.translation.systems import Alone, Neighbors, Remembering
from raremem.benchmarks.training.translator.recipe import Reading, TranslationRecipe
from raremem.benchmarks.training.translator.text import Text, make_learner, make_store

TOKENS = 40


class Parrot:
    """A network that says the end, and whose state at a token is one-hot by the token before and the source's first token."""

    def opened(self, source):
        return source[0]

    def _reading(self, encoded, tokens):
        probabilities = np.full((len(tokens), TOKENS), 0.4 / (TOKENS - 1), np.float32)
        probabilities[:, END] = 0.6
        states = np.zeros((len(tokens), 2 * TOKENS), np.float32)
        states[np.arange(len(tokens)), tokens] = 1
        states[:, TOKENS + encoded[0]] = 1
        attention = np.full((len(tokens), len(encoded)), 1 / len(encoded), np.float32)
        return Reading(probabilities, states, states, attention)

    def forced(self, encoded, read):
        return self._reading(encoded, read)

    def step(self, encoded, tokens, layers=None):
        return self._reading(encoded, tokens), layers or 1


def always(neighbors, context):
    """A gate that hears the memory almost alone wherever it has something as similar as can be."""
    weights = {
        "neighbors/mean": np.zeros(neighbors, np.float32), "neighbors/deviation": np.ones(neighbors, np.float32),
        "context/mean": np.zeros(context, np.float32), "context/deviation": np.ones(context, np.float32),
        "neighbor_in": np.zeros((neighbors + context, 1), np.float32), "neighbor_bias": np.array([-9], np.float32),
        "neighbor_out": np.array([9], np.float32), "network_in": np.zeros((context, 1), np.float32),
        "network_bias": np.zeros(1, np.float32), "network_out": np.zeros(1, np.float32), "start": np.zeros(1, np.float32),
    }  # fmt: skip
    weights["neighbor_in"][0] = 10
    return gate.Gate(weights)


def remembering(slots=64, lexical=False):
    store = make_store("torch", MemoryConfig(slots, 2 * TOKENS, 4, age_noise=0))
    lexicon = Lexicon(make_store("torch", MemoryConfig(64, KEY_DIM, 8)), 64, Counter()) if lexical else None
    return Remembering(store, slots, lexicon, gate=always(14, 8))


def stream_of(*pairs):
    words = SourceWords(Counter(), random_rows(TOKENS))
    return sentences(words, [[[token] for token in source] for source, _ in pairs], [[[t] for t in said] for _, said in pairs])


def test_a_sentence_is_translated_before_it_is_read():
    again = ([10, 11], [20, 21, 22])
    spoken = run_stream(Parrot(), {"alone": Alone(), "memory": remembering()}, stream_of(again, again))
    assert spoken["alone"].said == [[], []]
    assert spoken["memory"].said == [[], [20, 21, 22]]
    assert spoken["memory"].right == [[False, False, False, True], [True] * 4]
    assert [[origin.sentence for origin in row] for row in spoken["memory"].origins] == [[], [0, 0, 0]]


def test_that_check_sees_one_who_reads_first(monkeypatch):
    class Cheat(Remembering):
        def answer(self, source, reading, last, before):
            if before is None and len(last) == 1:
                self.read(source, Parrot().forced(source.tokens, np.array([START, 20, 21, 22], np.int32)),
                          np.array([START, 20, 21, 22], np.int32), [[20], [21], [22]])  # fmt: skip
            return super().answer(source, reading, last, before)

    honest = remembering()
    cheat = Cheat(honest.store, 64, None, gate=honest.gate)
    assert run_stream(Parrot(), {"memory": cheat}, stream_of(([10, 11], [20, 21, 22])))["memory"].said != [[]]


def test_nothing_is_read_where_nothing_shall_be():
    system = remembering()
    pair = ([10, 11], [20, 21])
    spoken = run_stream(Parrot(), {"memory": system}, stream_of(pair, pair), reads=False)
    assert spoken["memory"].said == [[], []]
    assert system.sentence == 0


def test_notes_follow_the_slots_of_a_full_memory():
    """Of four slots each always holds the notes of the token whose value it holds."""
    system = remembering(slots=4)
    pairs = [([10 + number], [20 + number, 30 + number]) for number in range(9)]
    stream = stream_of(*pairs)
    for number, sentence in enumerate(stream):
        run_stream(Parrot(), {"memory": system}, [sentence])
        values = system.store.memory.state.values.numpy()
        newest = np.flatnonzero(system.notes.first == number)
        assert len(newest) >= 2
        for slot in newest[values[newest] >= 20]:
            before = START if values[slot] == 20 + number else 20 + number
            assert system.notes.last[slot] == before
            assert system.notes.word[slot] in sentence.source.numbers
            assert system.notes.hits[slot] == 0


def test_a_hit_is_noted_and_a_taken_slot_begins_anew():
    notes = Notes(3)
    row = np.array([0], np.int32)
    notes.write(row, np.array([False]), row + 7, row + 1, 0)
    notes.write(row, np.array([True]), row + 8, row + 1, 5)
    assert (notes.hits[0], notes.first[0], notes.recent[0], notes.word[0]) == (1, 0, 5, 8)
    notes.write(row, np.array([False]), row + 9, row + 1, 6)
    assert (notes.hits[0], notes.first[0], notes.recent[0], notes.word[0]) == (0, 6, 6, 9)
    notes.write(row - 1, np.array([False]), row + 3, row + 1, 7)
    assert (notes.word == 3).sum() == 0


def test_a_word_shown_once_is_offered_for_its_source_word():
    words = SourceWords(Counter({(10,): 10**5}), random_rows(TOKENS))
    first, second = sentences(words, [[[10], [11, 12]], [[13], [11, 12]]], [[[20, 21, 22]], [[23]]])
    lexicon = Lexicon(make_store("torch", MemoryConfig(64, KEY_DIM, 8)), 64, Counter())
    assert len(lexicon.candidates(first.source).slots) == 0
    reading = Parrot().forced(first.source.tokens, np.array([START, 20, 21, 22], np.int32))
    lexicon.read(first.source, reading, first.target, 0)
    found = lexicon.candidates(second.source)
    assert found.tokens[0, :4].tolist() == [20, 21, 22, -1]
    assert second.source.numbers[found.place[0]] == first.source.numbers[1]
    np.testing.assert_allclose(found.similarities[0], 1, atol=1e-5)
    words = second.source.by_word(reading.attention[:, : len(second.source.tokens)])
    history = np.array([START, 20, 21, 22], np.int32)
    each, values = lexicon.evidence(second.source, found, reading.probabilities, words, words, history, 1)
    assert values[:, 0].tolist() == [20, 21, 22, 20]
    assert each.shape[:2] == values.shape


def read_words(lexicon, *pairs, common=(10,)):
    """The sources of pairs of sentences, of words of one token each, after the lexicon has read all of them."""
    words = SourceWords(Counter({(token,): 10**5 for token in common}), random_rows(TOKENS))
    told = [([[token] for token in source], [[token] for token in said]) for source, said in pairs]
    stream = sentences(words, [source for source, _ in told], [said for _, said in told])
    for number, sentence in enumerate(stream):
        said = np.array([token for word in sentence.target for token in word], np.int32)
        reading = Parrot().forced(sentence.source.tokens, np.concatenate([[START], said]).astype(np.int32))
        lexicon.read(sentence.source, reading, sentence.target, number)
    return [sentence.source for sentence in stream]


def offered(lexicon, source):
    return [int(word[0]) for word in lexicon.candidates(source).tokens]


def test_a_pair_of_words_has_one_slot_however_often_it_is_read():
    """Before, only the nearest slot of a source word could be hit: its second translation took a new slot each time."""
    lexicon = Lexicon(make_store("torch", MemoryConfig(64, KEY_DIM, 8)), 64, Counter())
    read_words(lexicon, *[([11], [20]), ([11], [21])] * 5)
    filled = np.asarray(lexicon.store.memory.state.values) >= 0
    assert lexicon.hits[filled].tolist() == [4, 4]


def test_the_word_that_came_with_a_source_word_each_time_is_offered_first():
    lexicon = Lexicon(make_store("torch", MemoryConfig(256, KEY_DIM, 64)), 256, Counter())
    *_, source = read_words(lexicon, *[([11, 12 + place], [20, 30 + place]) for place in range(8)], ([11], []))
    assert offered(lexicon, source)[0] == 20


def test_a_word_is_not_noted_for_a_source_word_that_another_stands_for():
    """The network attends to [11] for both words, and more for the first: the second is then the translation of [12]."""
    source = SourceWords(Counter(), random_rows(TOKENS)).source([[11], [12]])
    attention = np.array([[0.9, 0.05, 0.05], [0.85, 0.1, 0.05], [0.1, 0.1, 0.8]], np.float32)
    reading = Reading(np.ones((3, TOKENS), np.float32), attention, attention, attention)
    shares = aligned(source, reading, [[20], [21]], np.zeros(2, np.float32))
    np.testing.assert_allclose(shares.sum(1), 1, rtol=1e-5)
    assert shares[0, 0] > shares[0, 1]
    assert shares[1, 1] > shares[1, 0]


def test_begun_words_go_on():
    tokens = np.full((2, LONGEST_WORD), -1, np.int32)
    tokens[0, :3], tokens[1, :1] = [5, 6, 7], [5]
    begun, before = _begun(tokens, np.array([5, 6, 7, 5, 9], np.int32), 5)
    assert begun.tolist() == [[1, 0], [2, 0], [0, 0], [1, 0], [0, 0]]
    assert before.tolist() == [[0, 1], [0, 1], [1, 1], [1, 2], [1, 2]]


def made_up(generator, rows=600):
    """Tokens at which the first feature of a neighbor tells whether it is right, and the network is no help."""
    right = generator.random((rows, 3)) < 0.3
    features = generator.normal(size=(rows, 3, 4)).astype(np.float32)
    features[:, :, 0] = right + 0.1 * generator.normal(size=right.shape)
    context = generator.normal(size=(rows, 2)).astype(np.float32)
    seen = Evidence(features, context, np.zeros((rows, 3), np.int32), np.ones((rows, 3), np.bool_))
    return seen, np.full(rows, 0.01, np.float32), right


def likelihood(shares, own, right):
    return np.log(shares[:, 0] * own + (shares[:, 1:] * right).sum(1)).mean()


def test_a_gate_learns_whom_to_hear():
    generator = np.random.default_rng(0)
    train, test = made_up(generator), made_up(generator)
    learned = gate.learn(*train, np.ones(600, np.float32), seed=0, steps=400)
    shares = learned.shares(test[0])
    np.testing.assert_allclose(shares.sum(1), 1, rtol=1e-5)
    told = test[2].any(1)
    assert (shares[told, 0] < 0.5).mean() > 0.9
    assert likelihood(shares, *test[1:]) > np.log(0.01) + 2
    scrambled = test[0]._replace(neighbors=np.roll(test[0].neighbors, 1, axis=0))
    assert likelihood(learned.shares(scrambled), *test[1:]) < likelihood(shares, *test[1:]) - 0.5


def test_slopes_of_the_gate_are_those_of_its_likelihood():
    generator = np.random.default_rng(1)
    seen, own, right = made_up(generator, rows=20)
    weights = {name: array.astype(np.float64) for name, array in gate._first(seen, generator).items()}
    for name in ("neighbor_out", "network_out"):
        weights[name] = generator.normal(size=weights[name].shape)
    gains, weight = np.concatenate([own[:, None], right], 1), generator.random(20)
    neighbors, context = (part.astype(np.float64) for part in gate._scaled(weights, seen))

    def loss(changed):
        shares = gate._forward(changed, neighbors, context, seen.there)[0]
        return -(weight / weight.sum() * np.log((shares * gains).sum(1))).sum()

    slopes = gate._slopes(weights, neighbors, context, seen.there, gains, weight)
    for name, slope in slopes.items():
        place = tuple(size // 2 for size in slope.shape)
        step = np.zeros_like(weights[name])
        step[place] = 1e-2
        measured = (loss(weights | {name: weights[name] + step}) - loss(weights | {name: weights[name] - step})) / 2e-2
        assert slope[place] == pytest.approx(measured, rel=0.02, abs=2e-5), name


def test_a_gate_that_hears_too_little_hears_nothing():
    seen, *_ = made_up(np.random.default_rng(0), rows=5)
    weights = gate._first(seen, np.random.default_rng(0))
    assert (gate.Gate(weights).shares(seen)[:, 1:] > 0).all()
    shares = gate.Gate(weights, least=2.0).shares(seen)
    assert (shares[:, 0] == 1).all()
    assert (shares[:, 1:] == 0).all()


def test_knn_keeps_every_token_and_a_cache_the_last():
    pair = ([10, 11], [20, 21])
    store = make_store("torch", MemoryConfig(64, 2 * TOKENS, 4, write="keep"))
    systems = {"kNN-MT": KnnMt(store, 0.9, 0.1), "cache": Cache(3, 0.9, 40.0)}
    spoken = run_stream(Parrot(), systems, stream_of(pair, pair))
    assert spoken["kNN-MT"].said == [[], [20, 21]]
    assert spoken["cache"].said == [[], [20, 21]]
    assert len(store.memory) == 6
    assert len(systems["cache"].values) == 3


def test_weights_of_neighbors_are_those_there():
    slots = np.array([[3, 1, -1], [-1, -1, -1]], np.int32)
    weights = softened(Neighbors(slots, slots, np.array([[1, 0.9, 0], [0, 0, 0]], np.float32)), 0.1)
    np.testing.assert_allclose(weights, [[1 / (1 + np.exp(-2)), np.exp(-2) / (1 + np.exp(-2)), 0], [0, 0, 0]], rtol=1e-5)


def test_adaptive_hears_the_nearest_where_it_alone_is_right():
    generator = np.random.default_rng(0)
    near = np.sort(generator.random((400, 4)).astype(np.float32), axis=1)[:, ::-1].copy()
    values = generator.integers(5, 30, (400, 4)).astype(np.int32)
    neighbors = Neighbors(values, np.arange(1600, dtype=np.int32).reshape(400, 4), near)
    weights = learn_adaptive(neighbors, np.full(400, 0.01, np.float32), values[:, 0].copy(), 0.5, seed=0, passes=60)
    chosen = _choice(weights, adaptive_features(neighbors))[0]
    assert chosen[:, 1].mean() > 0.8


def test_what_is_held_out_is_the_part_with_most_new_words():
    document = ["a/x"] * HELD[0] + ["b/y"] * HELD[0] + ["c/z"] * 50
    target = [f"same {n % 50}" for n in range(HELD[0])] + [f"new{n}" for n in range(HELD[0])] + [f"same {n}" for n in range(50)]
    train, held = hold_out(Stream(target, target, document))
    assert set(held.document) == {"b/y"}
    assert set(train.document) == {"a/x", "c/z"}
    train, held = hold_out(Stream(target, target, None))
    assert held.target == target[-len(target) // 10 :] or len(held) == len(target) // 10
    assert train.target + held.target == target


def test_long_references_are_cut_between_words():
    assert cut([[1] * 50, [2] * 46, [3]]) == [[1] * 50, [2] * 46]
    assert cut([[1] * 97]) == []


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_one_step_is_as_all_steps_at_once(backend):
    learner = make_learner(backend, TINY, (60, 60))
    source, read = np.array([[9, 8, 7, END]], np.int32), np.array([START, 5, 6, 5], np.int32)
    encoded = learner.opened(source)
    whole, layers = learner.forced(encoded, read), None
    for place, token in enumerate(read):
        one, layers = learner.step(encoded, np.array([token, 7], np.int32), layers)
        for part, expected in zip(one, whole, strict=True):
            np.testing.assert_allclose(part[0], expected[place], atol=1e-5)


TINY = TranslationRecipe(
    mixed=True, subwords=300, batch=16, dim=32, key_dim=16, slots=512, neighbors=4, rate=8e-3, steps=60
)  # fmt: skip


def folder_of(path, rows):
    path.mkdir()
    for language, column in (("en", 0), ("de", 1)):
        (path / f"stream.{language}").write_text("".join(row[column] + "\n" for row in rows))
    return path


@pytest.fixture
def setting(tmp_path):
    generator = np.random.default_rng(0)

    def rows(count, words):
        chosen = [generator.integers(0, words, 4) for _ in range(count)]
        return [(" ".join(f"e{n}" for n in row), " ".join(f"d{n}" for n in row)) for row in chosen]

    train, stream = folder_of(tmp_path / "train", rows(400, 20)), folder_of(tmp_path / "mine", rows(16, 60))
    return Setting("torch", None, tmp_path / "out", 0.01, 0, stream, train)


@pytest.mark.parametrize(("backend", "parts", "few"), [("torch", (1.0, 0.5, 0.1), 1_000), ("jax", (0.1,), 64)])
def test_a_whole_run_on_text_of_ones_own(backend, parts, few, setting):
    """JAX makes programs for each number of slots: there is one."""
    setting.out.mkdir()
    scale = run.Scale(held=12, stream=16, foreign=16, general=8, after=4, tuned=4, parts=parts, few=few, sizes=(64,))
    found = run.run_at(replace(setting, backend=backend), TINY, scale)
    systems = found.figures["streams"]["mine"]["systems"]
    assert list(systems) == ["alone", "memory", "kNN-MT", "adaptive kNN-MT", "cache", "fine-tuning"]
    assert systems["memory"]["words"][0]["words"] > 0
    assert {len(one["curve"]) for one in systems.values()} == {10}
    assert set(found.figures["general"]["bleu"]) == {"alone", "memory"}
    by_slots = found.figures["streams"]["mine"]["slots"]
    tokens = by_slots[0]["tokens"]
    assert {one["slots"] for one in by_slots} == {few, *(max(64, round(part * tokens)) for part in parts)}
    assert set(found.figures["networks"]["mine"]) == {"trained with a memory", "trained without"}
    assert all(one["translate"] > 0 for one in found.figures["costs"])
    assert len(found.plots()) == 1
    assert all(isinstance(value, float) for value in found.headline.values())


def test_training_goes_on_where_an_epoch_has_fewer_batches():
    """How documents fill batches depends on their order, which differs from epoch to epoch."""
    generator = np.random.default_rng(0)
    lines = [" ".join(["word"] * length) for length in generator.integers(1, 30, 6_000)]
    text = Text(
        Corpus(Sentences(lines, lines), Sentences(lines[:1], lines[:1])),
        replace(TINY, batch=4),
        documents=np.arange(6_000) // 7,
    )
    assert len({len(text.epoch(number)) for number in range(4)}) > 1
    assert all(len(text.batch_at(step, 10**6)[0]) == 4 for step in range(4 * len(text.epoch(0))))


def test_text_that_is_too_little_is_named(setting, tmp_path):
    short = folder_of(tmp_path / "short", [("a", "b")] * 9)
    with pytest.raises(DataError, match="9 sentences"):
        run.run_at(Setting("torch", None, tmp_path, 0.01, 0, setting.stream, Path(short)), TINY, run.Scale())


def test_a_kit_makes_empty_memories():
    kit = Kit("torch", TINY, Counter(), slots=32, word_slots=16)
    system = kit.remembering(None)
    assert len(system.store.memory) == 0
    assert system.notes.word.shape == (32,)
    assert kit.keeping().memory.config.write == "keep"
