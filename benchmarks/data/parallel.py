"""English-German text to translate: parallel files, OPUS's, gettext catalogs, and the text of the task `translation`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raremem.benchmarks.data.corpus import LANGUAGES, Sentences, plain_or_packed, read_pair
from raremem.benchmarks.data.errors import DataError
from raremem.benchmarks.data.text import MOST_TEXT, read_lines
from raremem.benchmarks.packages import need

STREAM = "stream"
"""The name of the pair of files that is taken before any other."""
APPLICATION = "scalc"
"""The part of LibreOffice's help that is no training text: of all parts it has the most new words (our choice)."""
EXPECTED = (
    f"a folder with {STREAM}.en and {STREAM}.de (and {STREAM}.doc, if there is one), or with one other pair of files NAME.en "
    "and NAME.de as OPUS's Moses format has them, plain or .gz; or a German .po file, or a folder of such files"
)
MNEMONIC = (re.compile(r"_(?=[^\W_])"), re.compile(r"&(?=[^\W_])(?!\w+;)"))
"""What marks the key of a menu entry, before its letter: in GTK, and in Qt. (What ends in a semicolon is HTML's &amp;.)"""


@dataclass(frozen=True)
class Stream(Sentences):
    """Sentences and their translations, in order.

    Attributes:
        document: of which document each sentence is, if that is known; sentences of a document stand together.
    """

    document: list[str] | None = None

    def __getitem__(self, part: slice) -> Stream:
        return Stream(self.source[part], self.target[part], self.document and self.document[part])


@dataclass(frozen=True)
class TranslationData:
    """What the task `translation` reads if no other text is named.

    Attributes:
        train: everyday sentences, sorted by length, of a document "tatoeba"; then LibreOffice's help, page by page, without one
            application. A document begins with the application's name and a slash.
        dev, test: everyday sentences.
        streams: by title: that application's help (a near one), and the manual of darktable (another subject).
    """

    train: Stream
    dev: Sentences
    test: Sentences
    streams: dict[str, Stream]


def load_translation(path: Path) -> TranslationData:
    """Tatoeba, LibreOffice's help and the manual of darktable.

    Args:
        path: a folder with the folders `tatoeba` (train, dev and test, each as .en and .de), `libreoffice_help` and
            `darktable_manual` (each `stream.en`, `stream.de` and `stream.doc`); every file plain or .gz.

    Raises:
        DataError: a folder or a file is not there, or is not what it should be.
    """
    folders = [path / name for name in ("tatoeba", "libreoffice_help", "darktable_manual")]
    missing = [folder.name for folder in folders if not folder.is_dir()]
    if missing:
        raise DataError(
            f"--data {path} has no folder {' or '.join(missing)}; expected tatoeba, libreoffice_help and darktable_manual. "
            "Text of your own is named by --train and --stream."
        )
    everyday = read_pair(folders[0], "train")
    pages, manual = read_stream(folders[1]), read_stream(folders[2])
    if pages.document is None:
        raise DataError(
            f"{folders[1]} has no {STREAM}.doc; expected it: the page of each sentence, such as scalc/guide/sorted."
        )
    streamed = [page.startswith(f"{APPLICATION}/") for page in pages.document]
    if not any(streamed) or all(streamed):
        raise DataError(
            f"{folders[1]} has {sum(streamed)} of {len(pages)} sentences of pages {APPLICATION}/...; expected some."
        )
    known, calc = chosen(pages, [not each for each in streamed]), chosen(pages, streamed)
    train = Stream(
        everyday.source + known.source,
        everyday.target + known.target,
        ["tatoeba"] * len(everyday) + (known.document or []),
    )
    dev, test = (read_pair(folders[0], part) for part in ("dev", "test"))
    return TranslationData(train, dev, test, {"LibreOffice Calc's help": calc, "darktable's manual": manual})


def read_stream(path: Path) -> Stream:
    """English sentences with their German translations, in order. Pairs with a blank side are left out.

    Args:
        path: one of
            a folder with `stream.en`, `stream.de` and, if there is one, `stream.doc`: a sentence a line, and the name of its
            document; plain or .gz;
            a folder with one other pair NAME.en and NAME.de, as OPUS's Moses format is (`Tanzil.de-en.en`), and NAME.doc if
            there is one;
            a gettext catalog, .po, or a folder with such files in it or in its folders, of which those are read whose header
            does not name another language than German. Left out are entries that are obsolete, fuzzy or untranslated, and
            those alike in both languages. A plural is a pair of its own. White space becomes single spaces. A document is the
            file and, where it is noted, the file that the message is from. The mark of a menu's key is taken out (`_File`,
            `&File`): where it stands is no matter of translation, and it would make another word of each that has one.

    Raises:
        DataError: it is none of these, or cannot be read, or holds no pair.
        MissingPackageError: the package polib, which reads .po files, is not installed.
    """
    if path.is_file() and path.suffix == ".po":
        stream = _catalogs([path], path.parent)
    elif path.is_dir():
        stream = _folder(path)
    else:
        what = "a file that is none of these" if path.exists() else "not there"
        raise DataError(f"{path} is {what}; expected {EXPECTED}.")
    stream = chosen(stream, [bool(s.strip() and t.strip()) for s, t in zip(stream.source, stream.target, strict=True)])
    if not len(stream):
        raise DataError(f"{path} holds no sentence with its translation; expected {EXPECTED}.")
    return stream


def chosen(stream: Stream, rows: Sequence[bool] | NDArray[np.bool_]) -> Stream:
    """The sentences of a stream where `rows` [sentences] is True."""
    kept = np.flatnonzero(rows).tolist()
    document = None if stream.document is None else [stream.document[row] for row in kept]
    return Stream([stream.source[row] for row in kept], [stream.target[row] for row in kept], document)


def _folder(folder: Path) -> Stream:
    """The one pair of files in a folder, or else its catalogs."""
    there = sorted(path.name for path in folder.iterdir())
    stems = [
        {
            name.removesuffix(".gz").removesuffix(f".{language}")
            for name in there
            if name.removesuffix(".gz").endswith(f".{language}")
        }
        for language in LANGUAGES
    ]
    pairs = sorted(stems[0] & stems[1])
    name = STREAM if STREAM in pairs else pairs[0] if len(pairs) == 1 else None
    if name is not None:
        return _parallel(folder, name)
    if pairs:
        raise DataError(
            f"{folder} has {len(pairs)} pairs of files ({_some(pairs)}); expected one, or one called {STREAM}: "
            "put the one to read into a folder of its own."
        )
    catalogs = sorted(folder.rglob("*.po"))
    if not catalogs:
        raise DataError(f"{folder} has no pair of files and no .po file, but {_some(there) or 'nothing'}; expected {EXPECTED}.")
    return _catalogs(catalogs, folder)


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def _parallel(folder: Path, name: str) -> Stream:
    pair, path = read_pair(folder, name), plain_or_packed(folder, f"{name}.doc")
    document = read_lines(path, "the name of a document a line") if path.exists() else None
    if document is not None and len(document) != len(pair):
        raise DataError(
            f"{path} has {len(document)} lines, and {folder / name}.en has {len(pair)}; expected as many: "
            "the document of the sentence of that line."
        )
    return Stream(pair.source, pair.target, document)


def _catalogs(paths: list[Path], folder: Path) -> Stream:
    """The messages of gettext catalogs; their documents are named from a folder on."""
    rows: list[tuple[str, str, str]] = []
    others = set()
    for path in paths:
        catalog = _catalog(path)
        language = catalog.metadata.get("Language", "").strip()
        if language and re.split(r"[_@-]", language.lower())[0] != "de":
            others.add(language)
        else:
            rows += _messages(catalog, path.relative_to(folder).as_posix())
    if not rows:
        told = f"their header names the language {_some(sorted(others))}" if others else "no entry has a translation in use"
        raise DataError(f"{_some([str(path) for path in paths])}: {told}; expected German translations of English messages.")
    source, target, document = zip(*rows, strict=True)
    return Stream(list(source), list(target), list(document))


def _catalog(path: Path) -> Any:
    need("reading .po files", "polib")
    import polib

    try:
        size = path.stat().st_size
        if size > MOST_TEXT:
            raise ValueError(f"it has {size / 2**20:.0f} MiB, more than {MOST_TEXT / 2**20:g}")
        return polib.pofile(str(path))
    except (OSError, ValueError, LookupError) as error:
        why = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise DataError(
            f"{path} cannot be read ({why}); expected a gettext catalog; msgfmt --check tells what is wrong."
        ) from error


def _messages(catalog: Any, name: str) -> Iterator[tuple[str, str, str]]:
    """Source, translation and document of each entry that counts."""
    for entry in catalog:
        if not entry.translated():
            continue
        document = f"{name}:{entry.occurrences[0][0]}" if entry.occurrences else name
        pairs = [(entry.msgid, entry.msgstr)]
        if entry.msgid_plural:
            translations = [text for _, text in sorted(entry.msgstr_plural.items())]
            pairs = list(zip((entry.msgid, entry.msgid_plural), translations, strict=False))
        for pair in pairs:
            source, target = _without_mnemonic(*(" ".join(text.split()) for text in pair))
            if source != target:
                yield source, target, document


def _without_mnemonic(source: str, target: str) -> tuple[str, str]:
    """Both texts without the mark of a menu's key, where each has one and it is no part of a name, such as `max_size`."""
    for mark in MNEMONIC:
        if len(mark.findall(source)) == len(mark.findall(target)) == 1:
            marked = [next(word for word in re.findall(r"[\w&]+", text) if mark.search(word)) for text in (source, target)]
            if marked[0] != marked[1] or mark.match(marked[0]):
                return mark.sub("", source), mark.sub("", target)
    return source, target
