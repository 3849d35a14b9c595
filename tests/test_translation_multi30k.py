"""Translation on a tiny scale, in a made-up language: the last word of each sentence is a rare name."""

import gzip
import os
from collections import Counter

import numpy as np
import pytest

from raremem.benchmarks.data.corpus import END, PAD, START, Corpus, Sentences, load_multi30k, word_recall
from raremem.benchmarks.data.errors import DataError
from raremem.benchmarks.data.text import read_lines
from raremem.benchmarks.tasks.translation_multi30k.run import ARMS, SEEN, bleu, findings, measure
from raremem.benchmarks.training.snapshots import TrainingRun
from raremem.benchmarks.training.translator.recipe import BUCKETS, TranslationRecipe, epoch_of, padded
from raremem.benchmarks.training.translator.text import Text, make_learner
from raremem.command import cli

NAMES = 64
"""In training eight times each; as many others stand in the test set twice, once in each half."""
SMALL = {
    "subwords": 700, "batch": 32, "dim": 64, "key_dim": 32, "slots": 1024, "neighbors": 4, "dropout": 0.1, "rate": 8e-3,
}  # fmt: skip


def sentences(generator, names):
    words = generator.integers(0, 12, (len(names), 4))
    source = [" ".join([*(f"c{word}" for word in row), f"xxx{name:03}"]) for row, name in zip(words, names, strict=True)]
    target = [" ".join([*(f"k{word}" for word in row), f"yyy{name:03}"]) for row, name in zip(words, names, strict=True)]
    return Sentences(source, target)


@pytest.fixture(scope="module")
def corpus():
    generator = np.random.default_rng(0)
    train = sentences(generator, np.tile(np.arange(NAMES), 8))
    return Corpus(train, sentences(generator, np.repeat(np.arange(NAMES, 2 * NAMES), 2)))


def text_of(corpus, recipe):
    """With subwords that know every name as one token; the counts are of training alone.

    So many are translated at once that all batches have one size, and JAX makes one program.
    """
    both = Sentences(corpus.train.source + corpus.test.source * 2, corpus.train.target + corpus.test.target * 2)
    return Text(corpus, recipe, both, at_once=NAMES)


def trained(backend, corpus, memory, steps=220):
    recipe = TranslationRecipe(steps=steps, memory=memory, **SMALL)
    text = text_of(corpus, recipe)
    learner = make_learner(backend, recipe, text.sizes)
    losses = [learner.learn(*text.batch_at(step, steps)) for step in range(steps)]
    return losses, measure(learner, text, corpus.test)


def new_names(found, when):
    """Names never seen in training, that stand in the other half, in %."""
    return found["half"][when]["words"][0]["percent"]


def check(losses, with_memory, without):
    assert np.mean(losses[-10:]) < 0.2 * np.mean(losses[:10])
    assert new_names(with_memory, "before") == new_names(without, "before") == new_names(without, "after") == 0
    assert new_names(with_memory, "after") > 20
    assert with_memory["half"]["after"]["bleu"] > with_memory["half"]["before"]["bleu"] + 3
    assert with_memory["bleu"] > without["bleu"] - 5


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_memory_knows_names_that_it_has_read_once(backend, corpus):
    losses, with_memory = trained(backend, corpus, memory=True)
    _, without = trained(backend, corpus, memory=False)
    check(losses, with_memory, without)
    found = findings({"with memory": with_memory, "without": without}, {arm: TrainingRun({}, 220, 220) for arm in ARMS})
    assert found.headline["BLEU, with memory"] == with_memory["bleu"]
    assert len(found.plots()) == 1


def test_that_check_can_fail(corpus, monkeypatch):
    from raremem.benchmarks.training.translator.torch_learner import TorchTranslator

    monkeypatch.setattr(TorchTranslator, "read", lambda self, *batch: None)
    losses, found = trained("torch", corpus, memory=True)
    with pytest.raises(AssertionError):
        check(losses, found, found)


def test_batches_hold_every_pair_and_no_other(corpus):
    recipe = TranslationRecipe(**SMALL)
    text = text_of(corpus, recipe)
    order = np.concatenate(epoch_of(recipe, text.train, 0))
    assert len(set(order.tolist())) == len(order) > 0.9 * len(text.train)
    assert not np.array_equal(order, np.concatenate(epoch_of(recipe, text.train, 1)))
    source, read, said, rare = padded(text.train[:3])
    assert source.shape[1] in BUCKETS
    for row, pair in enumerate(text.train[:3]):
        assert source[row, : len(pair.source) + 1].tolist() == [*pair.source, END]
        assert read[row, : len(pair.target) + 1].tolist() == [START, *pair.target]
        assert said[row, : len(pair.target) + 1].tolist() == [*pair.target, END]
        assert (said[row, len(pair.target) + 1 :] == PAD).all()
        assert pair.rare == [False] * 4 + [True]
        assert rare[row].sum() == 1


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_padding_is_not_read(backend, corpus):
    """A sentence is encoded alike whatever it is padded to."""
    text = text_of(corpus, TranslationRecipe(**SMALL))
    learner = make_learner(backend, TranslationRecipe(**SMALL), text.sizes)
    source = np.array([[*text.train[0].source, END]], np.int32)
    padded_more = np.pad(source, ((0, 0), (0, 9)), constant_values=PAD)
    if backend == "torch":
        import torch

        learner.eval()
        short, long = (learner.encode(torch.from_numpy(rows)).states.detach().numpy() for rows in (source, padded_more))
    else:
        encode = learner.compiled(lambda network, rows: network.encode(rows).states)
        short, long = (np.asarray(encode(rows)) for rows in (source, padded_more))
    np.testing.assert_allclose(long[:, : source.shape[1]], short, rtol=0, atol=1e-5)


def test_all_tokens_of_a_rare_word_are_rare(corpus):
    text = Text(corpus, TranslationRecipe(**{**SMALL, "subwords": 36}))
    pair = text.train[0]
    assert len(pair.target) == len(pair.rare) > 5
    assert pair.rare == sorted(pair.rare)
    assert sum(pair.rare) == len(pair.target) - 4


def test_subwords_go_back_to_sentences(corpus):
    text = text_of(corpus, TranslationRecipe(**SMALL))
    rows = [[token for word in words for token in word] for words in text.target.encode(["k1 k2 yyy001", "k3 k4 yyy002"])]
    tokens = np.array([[*row, END, 7, 7] for row in rows])
    assert text.target.decode(tokens) == ["k1 k2 yyy001", "k3 k4 yyy002"]


def test_words_found_by_how_often_they_were_seen():
    seen = Counter({"der": 500, "Hund": 3, "Zug": 1})
    references, translations = ["der Hund, der Zug", "Wolke"], ["der Hund der Hund.", "der"]
    found = word_recall(seen, SEEN, translations, references)
    assert [group["words"] for group in found] == [1, 1, 1, 0, 0, 2]
    assert [group["percent"] for group in found] == [0.0, 0.0, 100.0, None, None, 100.0]
    assert word_recall(seen, SEEN, translations, references, only={"Zug"})[2]["words"] == 0


def test_bleu_is_that_of_sacrebleu():
    assert bleu(["Ein Hund läuft im Schnee."], ["Ein Hund läuft im Schnee."]) == pytest.approx(100)
    assert bleu(["Eine Katze."], ["Ein Hund läuft im Schnee."]) < 20


def test_multi30k_as_text_or_gz(tmp_path):
    (tmp_path / "multi30k").mkdir()
    for part in ("train", "test_2016_flickr"):
        for language in ("en", "de"):
            lines = f"a {language}\nb {language}\n"
            if part == "train":
                (tmp_path / "multi30k" / f"{part}.{language}.gz").write_bytes(gzip.compress(lines.encode()))
            else:
                (tmp_path / "multi30k" / f"{part}.{language}").write_text(lines)
    corpus = load_multi30k(tmp_path)
    assert corpus.train == Sentences(["a en", "b en"], ["a de", "b de"])
    assert corpus.test[1:] == Sentences(["b en"], ["b de"])
    (tmp_path / "multi30k" / "test_2016_flickr.de").write_text("one line\n")
    with pytest.raises(DataError, match="2 lines in English and 1 in German"):
        load_multi30k(tmp_path)
    with pytest.raises(DataError, match="cannot be read"):
        load_multi30k(tmp_path / "nowhere")


SENTENCES = ["a\u2028b\u2029c", "d\x0be\x0cf\x1cg\x1dh\x1ei\x85j", "", "k\rl", " ein M\u00e4dchen\u00a0", "\N{GRINNING FACE}"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32", "utf-32-be"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("last", [True, False])
def test_lines_end_at_line_feeds_and_nowhere_else(tmp_path, encoding, end, suffix, last):
    mark = "\ufeff" if encoding.endswith("-be") else ""
    content = (mark + end.join(SENTENCES) + end * last).encode(encoding)
    path = tmp_path / f"train.en{suffix}"
    path.write_bytes(gzip.compress(content) if suffix else content)
    assert read_lines(path, "text") == SENTENCES


def damaged(content, place):
    return content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :]


PACKED = gzip.compress(b"a sentence\n" * 50)
UNREADABLE = {
    "empty": ("train.en", b""),
    "blank lines": ("train.en", b" \n\r\n\n"),
    "a mark and no text": ("train.en", b"\xef\xbb\xbf"),
    "Latin-1": ("train.en", "M\u00e4dchen\n".encode("latin-1")),
    "UTF-16 without a mark": ("train.en", "a\nb\n".encode("utf-16-le")),
    "half a character of UTF-16": ("train.en", b"\xff\xfea\x00b"),
    "half a character of UTF-8": ("train.en", b"a\xc3"),
    "empty .gz": ("train.en.gz", b""),
    "nothing packed": ("train.en.gz", gzip.compress(b"")),
    "text called .gz": ("train.en.gz", b"a sentence\n"),
    "cut .gz": ("train.en.gz", PACKED[:-9]),
    "changed .gz": ("train.en.gz", damaged(PACKED, 14)),
    "another checksum": ("train.en.gz", damaged(PACKED, len(PACKED) - 6)),
    "junk after a .gz": ("train.en.gz", PACKED + b"junk"),
    "too much": ("train.en", b"a sentence\n" * 1000),
    "too much in a .gz": ("train.en.gz", gzip.compress(b"a sentence\n" * 1000)),
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_a_text_that_is_none_is_one_line_that_names_it(tmp_path, kind):
    name, content = UNREADABLE[kind]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as raised:
        read_lines(tmp_path / name, "text", most=1000)
    assert str(tmp_path / name) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_folder_or_a_pipe_is_no_text(tmp_path):
    (tmp_path / "train.en").mkdir()
    os.mkfifo(tmp_path / "train.de")
    for name in ("train.en", "train.de", "train.fr"):
        with pytest.raises(DataError, match=rf"train\.{name[-2:]} cannot be read"):
            read_lines(tmp_path / name, "text")


def test_too_few_sentences_are_told_before_training(tmp_path, monkeypatch, capsys):
    for part in ("train", "test_2016_flickr"):
        for language in ("en", "de"):
            (tmp_path / f"{part}.{language}").write_text("ein Satz\n" * 3)
    assert cli.main(["bench", "translation-multi30k", "--data", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    assert "has no 64 pairs of about one length" in capsys.readouterr().err
