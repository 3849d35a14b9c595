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
        tables[f"{title}: BLEU in the last quarter against slots"] = _slots(found["slots"])
        tables[f"{title}: one half translated before and after the other was read"] = _halves(found["halves"])
    for title, lags in figures["general"]["lags"].items():
        tables[f"{title}, longer: new words shown once, by sentences since then, %"] = table_of("shown", LAGS_NAMES, lags)
    tables["General text, BLEU"] = _general(figures)
    tables["The network by itself, BLEU, by how it was trained"] = _networks(figures["networks"])
    tables["Milliseconds a sentence"] = _costs(figures["costs"])
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


def _slots(found: list[dict[str, Any]]) -> Table:
    sizes = sorted({one["slots"] for one in found}, reverse=True)
    scores = {(one["method"], one["slots"]): f"{one['bleu']:.1f}" for one in found}
    rows = [[method, *(scores[method, size] for size in sizes)] for method in dict.fromkeys(one["method"] for one in found)]
    return [[f"slots, of {found[0]['tokens']:,} tokens", *(f"{size:,}" for size in sizes)], *rows]


def _halves(found: dict[str, dict[str, Any]]) -> Table:
    groups = [
        f"{group} ({found['after']['words'][place]['words']:,})" for place, group in enumerate(("new", "seen 1-10 times"))
    ]
    rows = [[name, f"{one['bleu']:.1f}", *map(_percent, one["words"])] for name, one in found.items()]
    return [["", "BLEU", *(f"words {group}, %" for group in groups)], *rows]


def _networks(found: dict[str, dict[str, float]]) -> Table:
    names = list(next(iter(found.values())))
    return [["", *names], *([title, *(f"{scores[name]:.1f}" for name in names)] for title, scores in found.items())]


def _costs(found: list[dict[str, Any]]) -> Table:
    def named(one: dict[str, Any]) -> str:
        return f"{one['slots']:,} slots, {one['search']}" if one["slots"] else "no memory"

    return [["", "translate", "read"], *([named(one), f"{one['translate']:.0f}", f"{one['read']:.0f}"] for one in found)]


def _percent(group: dict[str, Any]) -> str:
    return "-" if group["percent"] is None else f"{group['percent']:.1f}"


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
