"""The tables and plots of the task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from raremem.benchmarks.task import Findings, Table
from raremem.benchmarks.tasks.translation.words import LAGS_NAMES, TIMES_NAMES, table_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NOTES = [
    "BLEU is sacreBLEU's, cased. Decoding is greedy. Each sentence is translated first and read with its reference after that.",
    "A new word is one that training never had. Given the reference: each token is asked after those before it there.",
    "A near-duplicate differs from an earlier line by at most one word.",
]
LEARNED = 60
"""Words of the table of words learned."""


def findings(figures: dict[str, Any]) -> Findings:
    """The tables and plots of what `Trial` found."""
    tables: dict[str, Table] = {}
    for title, found in figures["streams"].items():
        systems = found["systems"]
        tables |= {
            f"{title}: BLEU": _bleu(found),
            f"{title}: new words said in free translation, by how often shown, %": _words(systems, "words", TIMES_NAMES),
            f"{title}: the same without near-duplicates, %": _words(systems, "words without near-duplicates", TIMES_NAMES),
            f"{title}: new words shown once, by sentences since then, %": _words(systems, "words by lag", LAGS_NAMES),
            f"{title}: new words given the reference before them, %": _words(systems, "words given", TIMES_NAMES),
            f"{title}: their tokens, %": _words(systems, "tokens given", TIMES_NAMES),
            f"{title}: words learned by the memory": _learned(systems["memory"]["learned"]),
            f"{title}: what the memory gave, and where it has it from": _examples(found["examples"]),
        }
        tables[f"{title}: general text after it, BLEU"] = [
            ["", "BLEU"],
            *([name, f"{score:.2f}"] for name, score in found["general text after"].items()),
        ]
    tables["General text, BLEU"] = _general(figures)
    run = figures["run"]
    return Findings(
        headline=_headline(figures),
        figures=figures,
        tables=tables,
        plots=lambda: [_plot(title, found) for title, found in figures["streams"].items()],
        facts={
            "training": f"{run['done']:,} batches in {run['seconds'] / 60:.1f} minutes",
            "set on text held out": ", ".join(f"{name} {value}" for name, value in figures["settled"].items()),
        },
        notes=NOTES,
    )


def _headline(figures: dict[str, Any]) -> dict[str, float]:
    headline: dict[str, float] = {}
    for title, found in figures["streams"].items():
        for name, one in found["systems"].items():
            headline[f"{title}, last quarter, {name}: BLEU"] = one["last quarter"]
        words = found["systems"]["memory"]["words"]
        for place in (1, 2, 4):
            if words[place]["percent"] is not None:
                headline[f"{title}, new words shown {TIMES_NAMES[place]}, memory, %"] = words[place]["percent"]
    for name, score in figures["general"]["bleu"].items():
        headline[f"general text after {figures['general']['sentences read']:,} sentences, {name}: BLEU"] = score
    return headline


def _bleu(found: dict[str, Any]) -> Table:
    names = ["bleu", "last quarter", "bleu without near-duplicates", "last quarter without near-duplicates"]
    rows = [[name, *(f"{one[key]:.1f}" for key in names), f"{one['tokens']:.1f}"] for name, one in found["systems"].items()]
    header = ["", "all", "last quarter", "without near-duplicates", "last quarter without", "tokens, %"]
    return [header, *rows]


def _words(systems: dict[str, Any], key: str, names: list[str]) -> Table:
    return table_of("shown", names, {name: one[key] for name, one in systems.items()})


def _learned(words: list[list[Any]]) -> Table:
    header = ["word", "first shown in sentence", "first said in sentence"]
    return [header, *([word, f"{shown + 1:,}", f"{said + 1:,}"] for word, shown, said in words[:LEARNED])]


def _examples(examples: list[dict[str, Any]]) -> Table:
    table = [["sentence", "English", "with memory", "alone", "reference", "from the memory"]]
    for one in examples:
        given = "; ".join(f"{text}: from {number:,}, {source}" for text, number, source, _ in one["words"])
        table.append([f"{one['sentence']:,}", one["source"], one["memory"], one["alone"], one["reference"], given])
    return table


def _general(figures: dict[str, Any]) -> Table:
    general = figures["general"]
    rows = [[name, f"{score:.2f}"] for name, score in general["bleu"].items()]
    return [["", f"after {general['sentences read']:,} sentences of other text"], *rows]


def _plot(title: str, found: dict[str, Any]) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    for name, one in found["systems"].items():
        places = [(place + 0.5) * found["sentences"] / len(one["curve"]) for place in range(len(one["curve"]))]
        axes.plot(places, one["curve"], marker="o", label=name)
    axes.set(title=title, xlabel="sentences read", ylabel="BLEU of a tenth of the stream", ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend()
    return figure
