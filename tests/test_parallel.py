"""Text to translate: files and catalogs, near-duplicates, and the words that a stream shows."""

import gzip
import time
from collections import Counter
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from raremem.benchmarks.data.corpus import Sentences, word_counts, word_recall, words
from raremem.benchmarks.data.duplicates import near_duplicates
from raremem.benchmarks.data.errors import DataError
from raremem.benchmarks.data.parallel import Stream, load_translation, read_stream
from raremem.benchmarks.tasks.translation import words as new_words
from raremem.benchmarks.tasks.translation.words import Learned, by_lag, by_times, follow, learned, table_of

ENGLISH, GERMAN, PAGES = ["one", "two", "three"], ["eins", "zwei", "drei"], ["a/x", "a/x", "b/y"]


def write(folder, name, lines, packed=False):
    folder.mkdir(parents=True, exist_ok=True)
    content = "".join(f"{line}\n" for line in lines).encode()
    (folder / f"{name}{'.gz' * packed}").write_bytes(gzip.compress(content) if packed else content)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", ["stream", "Tanzil.de-en", "a"])
@pytest.mark.parametrize("document", [None, PAGES])
def test_a_pair_of_files(tmp_path, name, packed, document):
    write(tmp_path, f"{name}.en", ENGLISH, packed)
    write(tmp_path, f"{name}.de", GERMAN, packed)
    write(tmp_path, "README", ["from OPUS"])
    if document:
        write(tmp_path, f"{name}.doc", document, packed)
    stream = read_stream(tmp_path)
    assert stream == Stream(ENGLISH, GERMAN, document)
    assert stream[1:] == Stream(ENGLISH[1:], GERMAN[1:], document and document[1:])
    assert isinstance(stream, Sentences)
    assert len(stream) == 3


def test_a_stream_goes_before_other_pairs(tmp_path):
    for name in ("train", "stream", "test"):
        write(tmp_path, f"{name}.en", [name])
        write(tmp_path, f"{name}.de", [name.upper()])
    assert read_stream(tmp_path).source == ["stream"]


def test_blank_sides_are_left_out_with_their_documents(tmp_path):
    write(tmp_path, "stream.en", ["one", " ", "three", "four"])
    write(tmp_path, "stream.de", ["eins", "zwei", "", "vier"])
    write(tmp_path, "stream.doc", ["a", "b", "c", "d"])
    assert read_stream(tmp_path) == Stream(["one", "four"], ["eins", "vier"], ["a", "d"])


WRONG = {
    "no German": ({"stream.en": ENGLISH}, "no pair of files and no .po file, but stream.en"),
    "nothing": ({}, "but nothing"),
    "two pairs": ({"a.en": ENGLISH, "a.de": GERMAN, "b.en": ENGLISH, "b.de": GERMAN}, r"2 pairs of files \(a, b\)"),
    "a line less": ({"a.en": ENGLISH, "a.de": GERMAN[1:]}, "3 lines in English and 2 in German"),
    "a document less": ({"a.en": ENGLISH, "a.de": GERMAN, "a.doc": PAGES[1:]}, "a.doc has 2 lines, and .*a.en has 3"),
    "nothing together": ({"a.en": ["one", ""], "a.de": ["", "zwei"]}, "holds no sentence with its translation"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_no_stream_is_told(tmp_path, kind):
    files, told = WRONG[kind]
    for name, lines in files.items():
        write(tmp_path, name, lines)
    with pytest.raises(DataError, match=told) as raised:
        read_stream(tmp_path)
    assert str(tmp_path) in str(raised.value)
    assert "expected" in str(raised.value)


def test_a_path_that_is_none_is_told(tmp_path):
    (tmp_path / "en-de.txt.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match="is a file that is none of these; expected a folder"):
        read_stream(tmp_path / "en-de.txt.zip")
    with pytest.raises(DataError, match="is not there; expected a folder"):
        read_stream(tmp_path / "nowhere")


HEADER = 'msgid ""\nmsgstr ""\n"Language: de\\n"\n"Content-Type: text/plain; charset=UTF-8\\n"\n\n'
CATALOG = (
    HEADER
    + """\
# a comment
#: src/main.c:12 src/other.c:3
msgctxt "menu"
msgid "Open the file"
msgstr "Die Datei öffnen"

#, fuzzy
msgid "Close it"
msgstr "Öffnen"

msgid "not translated"
msgstr ""

msgid "Zoom"
msgstr "Zoom"

#: src/count.c:7
msgid "%d image"
msgid_plural "%d images"
msgstr[0] "%d Bild"
msgstr[1] "%d Bilder"

msgid ""
"One message\\n"
"on two lines\\tand a half"
msgstr ""
"Eine Nachricht\\n"
"auf zwei Zeilen und einer halben"

#~ msgid "old"
#~ msgstr "alt"
"""
)
MESSAGES = [
    ("Open the file", "Die Datei öffnen", "de.po:src/main.c"),
    ("%d image", "%d Bild", "de.po:src/count.c"),
    ("%d images", "%d Bilder", "de.po:src/count.c"),
    ("One message on two lines and a half", "Eine Nachricht auf zwei Zeilen und einer halben", "de.po"),
]


def test_a_catalog(tmp_path):
    (tmp_path / "de.po").write_text(CATALOG)
    stream = read_stream(tmp_path / "de.po")
    assert list(zip(stream.source, stream.target, stream.document, strict=True)) == MESSAGES
    assert read_stream(tmp_path) == stream


def test_a_folder_of_catalogs_is_read_in_order_and_in_german(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "a.po").write_text(CATALOG.replace("Language: de", "Language: de_AT"))
    (tmp_path / "a.po").write_text('msgid "one"\nmsgstr "eins"\n')
    (tmp_path / "fr.po").write_text(CATALOG.replace("Language: de", "Language: fr"))
    stream = read_stream(tmp_path)
    assert stream.source == ["one", *(source for source, _, _ in MESSAGES)]
    assert stream.document[:2] == ["a.po", "b/a.po:src/main.c"]


def test_a_catalog_says_its_encoding(tmp_path):
    (tmp_path / "de.po").write_bytes(CATALOG.replace("UTF-8", "ISO-8859-1").encode("latin-1"))
    assert read_stream(tmp_path).target[0] == "Die Datei öffnen"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (("_File", "_Datei"), ("File", "Datei")),
        (("Sa_ve as", "Speichern _unter"), ("Save as", "Speichern unter")),
        (("&Print...", "Druc&ken ..."), ("Print...", "Drucken ...")),
        (("_Name", "_Name:"), ("Name", "Name:")),
        (("set max_size", "„max_size“ setzen"), ("set max_size", "„max_size“ setzen")),
        (("the __init__ method", "die Methode __init__"), ("the __init__ method", "die Methode __init__")),
        (("x &lt; 3", "x kleiner &lt; 3"), ("x &lt; 3", "x kleiner &lt; 3")),
        (("Q&A", "Fragen"), ("Q&A", "Fragen")),
        (("a _b and _c", "ein _b und _c"), ("a _b and _c", "ein _b und _c")),
        (("salt & pepper", "Salz & Pfeffer"), ("salt & pepper", "Salz & Pfeffer")),
    ],
)
def test_the_mark_of_a_menus_key_is_taken_out_and_no_other(tmp_path, before, after):
    (tmp_path / "de.po").write_text(f'{HEADER}msgid "{before[0]}"\nmsgstr "{before[1]}"\n')
    stream = read_stream(tmp_path)
    assert (stream.source, stream.target) == ([after[0]], [after[1]])


BROKEN = {
    "no catalog": b"one = eins\n",
    "a quote too many": CATALOG.encode() + b'\nmsgid "a"b"\n',
    "Latin-1 that says UTF-8": CATALOG.encode("latin-1"),
    "bytes": bytes(range(256)),
    "an encoding that is none": CATALOG.replace("UTF-8", "no-such-thing").encode("latin-1"),
    "empty": b"",
    "French alone": CATALOG.replace("Language: de", "Language: fr").encode(),
    "nothing translated": HEADER.encode() + b'msgid "one"\nmsgstr ""\n',
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_catalog_that_is_none_is_one_line_that_names_it(tmp_path, kind):
    (tmp_path / "messages.po").write_bytes(BROKEN[kind])
    with pytest.raises(DataError, match=r"messages\.po.*expected") as raised:
        read_stream(tmp_path)
    assert "\n" not in str(raised.value)


def data(folder):
    for part in ("train", "dev", "test"):
        write(folder / "tatoeba", f"{part}.en", [f"{part} {number}" for number in ENGLISH], packed=True)
        write(folder / "tatoeba", f"{part}.de", [f"{part} {number}" for number in GERMAN], packed=True)
    pages = ["sbasic/a", "scalc/b", "shared/scalc/c"]
    for name, documents in {"libreoffice_help": pages, "darktable_manual": PAGES}.items():
        for kind, lines in {"en": ENGLISH, "de": GERMAN, "doc": documents}.items():
            write(folder / name, f"stream.{kind}", lines, packed=True)


def test_the_text_of_the_task(tmp_path):
    data(tmp_path)
    found = load_translation(tmp_path)
    assert found.train.target == ["train eins", "train zwei", "train drei", "eins", "drei"]
    assert found.train.source == ["train one", "train two", "train three", "one", "three"]
    assert found.train.document == ["tatoeba", "tatoeba", "tatoeba", "sbasic/a", "shared/scalc/c"]
    assert (found.dev.source[0], found.test.target[2]) == ("dev one", "test drei")
    assert list(found.streams.values()) == [Stream(["two"], ["zwei"], ["scalc/b"]), Stream(ENGLISH, GERMAN, PAGES)]


def test_a_part_that_is_missing_is_told(tmp_path):
    data(tmp_path)
    write(tmp_path / "libreoffice_help", "stream.doc", ["sbasic/a"] * 3, packed=True)
    with pytest.raises(DataError, match="0 of 3 sentences of pages scalc"):
        load_translation(tmp_path)
    (tmp_path / "libreoffice_help" / "stream.doc.gz").unlink()
    with pytest.raises(DataError, match=r"no stream\.doc"):
        load_translation(tmp_path)
    (tmp_path / "tatoeba").rename(tmp_path / "everyday")
    with pytest.raises(DataError, match="no folder tatoeba; expected tatoeba, libreoffice_help and darktable_manual"):
        load_translation(tmp_path)


def near(line, other):
    """By the definition, in words."""
    one, two = sorted((words(line), words(other)), key=len)
    if len(one) == len(two):
        return sum(a != b for a, b in zip(one, two, strict=True)) <= 1
    return len(one) + 1 == len(two) and any(one == two[:place] + two[place + 1 :] for place in range(len(two)))


@given(st.lists(st.text("ab .", max_size=9), max_size=12))
@example(["a b c", "b c a"])
@example(["a b a b", "b a b a"])
@example(["a b b", "a b", "b"])
def test_near_duplicates_are_those_of_the_definition(lines):
    expected = [any(near(line, earlier) for earlier in lines[:place]) for place, line in enumerate(lines)]
    assert near_duplicates(lines).tolist() == expected


def test_near_duplicates_of_a_long_text():
    """Comparing all pairs of these lines takes hours."""
    numbers = np.random.default_rng(0).integers(0, 20_000, (50_000, 15))
    lines = [" ".join(f"w{number}" for number in row) for row in numbers]
    lines[40_000] = lines[7].replace(lines[7].split()[3], "another")
    lines[30_000] = " ".join(lines[9].split()[1:])
    lines[20_000] = lines[11] + " more"
    started = time.process_time()
    assert np.flatnonzero(near_duplicates(lines)).tolist() == [20_000, 30_000, 40_000]
    assert time.process_time() - started < 30


SEEN = word_counts(["der Hund und die Katze"])
REFERENCES = ["der Zug, Zug", "die Katze", "Zug und Wolke", "Wolke", "Zug, Wolke"]
SAID = ["Zug", "der Hund", "Wolke", "Wolke Zug", "Zug Zug Wolke"]


def test_new_words_of_a_stream():
    found = asdict(follow(SEEN, REFERENCES, SAID))
    found["words"] = np.array(found["words"])
    assert {name: column.tolist() for name, column in found.items()} == {
        "words": ["Zug", "Zug", "Wolke", "Wolke", "Zug", "Wolke"],
        "sentence": [0, 2, 2, 3, 4, 4],
        "due": [2, 1, 1, 1, 1, 1],
        "said": [1, 0, 1, 1, 1, 1],
        "shown": [0, 2, 0, 1, 3, 2],
        "ago": [0, 2, 0, 1, 2, 1],
    }


def test_new_words_by_times_and_by_lag():
    found = follow(SEEN, REFERENCES, SAID)
    assert [group["words"] for group in by_times(found)] == [3, 1, 2, 1, 0, 0]
    assert [group["percent"] for group in by_times(found)] == [pytest.approx(200 / 3), 100, 50, 100, None, None]
    without = np.array([False, False, True, False, False])
    assert [group["words"] for group in by_times(found, without)] == [2, 1, 1, 1, 0, 0]
    assert [group["words"] for group in by_lag(found)] == [1, 0, 0, 0]
    assert by_lag(found, np.ones(5, bool))[0] == {"words": 0, "percent": None}
    far = follow(Counter(), ["x"] + ["."] * 2000 + ["x"], [""] * 2001 + ["x"])
    assert by_lag(far)[3] == {"words": 1, "percent": 100}
    table = table_of("shown", new_words.TIMES_NAMES, {"memory": by_times(found)})
    assert table[1:] == [["memory", "66.7", "100.0", "50.0", "100.0", "-", "-"], ["words", "3", "1", "2", "1", "0", "0"]]


def test_every_group_of_times_has_its_name():
    assert len(new_words.TIMES) == len(new_words.TIMES_NAMES)
    assert new_words.LAGS_NAMES[2:] == ["101 to 1,000", "1,001 to 10,000"]
    shown = follow(Counter(), ["x"] * 30, ["x"] * 30)
    assert [group["words"] for group in by_times(shown)] == [1, 1, 1, 3, 15, 9]


@given(st.lists(st.tuples(st.text("abc ", max_size=6), st.text("abc ", max_size=6)), max_size=9), st.text("ab ", max_size=3))
def test_what_is_said_is_what_word_recall_counts(pairs, training):
    seen, references, said = word_counts([training]), [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    groups = by_times(follow(seen, references, said))
    due = sum(group["words"] for group in groups)
    right = sum(group["words"] * (group["percent"] or 0) for group in groups)
    (expected,) = word_recall(seen, ((0, 0),), said, references)
    assert due == expected["words"]
    assert right / due == pytest.approx(expected["percent"]) if due else expected["percent"] is None


def test_words_that_were_learned():
    """Not one that was said before it was shown, and not one that never was said."""
    references = ["Zug Wolke Boot", "Zug", "Wolke", "Zug Boot"]
    said = ["Wolke", "nichts", "Wolke", "Zug"]
    assert learned(follow(Counter(), references, said)) == [Learned("Zug", 0, 3)]
    with pytest.raises(ValueError, match="shorter"):
        follow(Counter(), references, said[1:])
