"""The demo's report: tables for the terminal, and one self-contained HTML page."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raremem.benchmarks.data.characters import Images
from raremem.benchmarks.demo.stream import DemoAnswers, Recall
from raremem.benchmarks.online.stream import ClassStream, lag_groups
from raremem.benchmarks.report.pages import inline_svg, render
from raremem.benchmarks.task import Table

SHOWINGS = (1, 2, 3, 5, 10)
LAGS = ((1, 9), (10, 99), (100, 999), (1_000, 9_999))
FEW = 20
"""Of fewer showings than this no accuracy is drawn."""


def accuracy_by_showing(stream: ClassStream, answers: DemoAnswers) -> Table:
    """A row for each method: accuracy in % on the 1st, 2nd, ... showing of a class."""
    header = ["showing", *(f"{showing}." for showing in SHOWINGS), "all but 1st"]
    return [header, *_rows(stream, answers, [stream.showing == showing for showing in SHOWINGS], stream.showing > 1)]


def accuracy_by_lag(stream: ClassStream, answers: DemoAnswers) -> Table:
    """A row for each method: accuracy in % by how many steps ago the class was last seen."""
    groups = lag_groups(stream, LAGS)
    header = ["last seen, steps ago", *(name.replace("-", " to ") for name in groups), "all but 1st"]
    return [header, *_rows(stream, answers, list(groups.values()), stream.showing > 1)]


def _rows(stream: ClassStream, answers: DemoAnswers, picked: list[NDArray[Any]], rest: NDArray[Any]) -> Table:
    rows = [["showings", *(f"{rows.sum():,}" for rows in (*picked, rest))]]
    for name, given in answers.by_method.items():
        right = given == stream.classes
        rows.append([name, *(f"{100 * right[rows].mean():.1f}" if rows.any() else "-" for rows in (*picked, rest))])
    return rows


def as_html(title: str, facts: dict[str, str], stream: ClassStream, answers: DemoAnswers, shown: Images) -> str:
    """The page: curves, tables and a gallery of what the memory retrieved. `shown` [steps, 28, 28] is the stream."""
    return render(
        "demo.html",
        title=title,
        facts=facts,
        curves=_curves(stream, answers),
        tables=(accuracy_by_showing(stream, answers), accuracy_by_lag(stream, answers)),
        gallery=[_gallery_row(recall, stream, shown) for recall in answers.recalls],
    )


def _curves(stream: ClassStream, answers: DemoAnswers) -> str:
    """Two plots as one inline SVG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    by_showing, by_lag = figure.subplots(1, 2, sharey=True)
    showings = np.arange(1, stream.showing.max() + 1)
    lags = {label: rows for label, rows in lag_groups(stream, LAGS).items() if rows.sum() >= FEW}
    for name, given in answers.by_method.items():
        right = 100 * (given == stream.classes)
        style = {"marker": "o", "linewidth": 2.5 if name == "raremem" else 1.2, "label": name}
        by_showing.plot(showings, [right[stream.showing == showing].mean() for showing in showings], **style)
        by_lag.plot(list(lags), [right[rows].mean() for rows in lags.values()], **style)
    by_showing.xaxis.get_major_locator().set_params(integer=True)
    by_showing.set(xlabel="showing of a class", ylabel="accuracy, %", ylim=(-3, 103), title="by showing")
    by_lag.set(xlabel="steps since the class was last seen", title="by how long ago")
    by_lag.legend(loc="lower left")
    for axes in (by_showing, by_lag):
        axes.grid(alpha=0.3)
    return inline_svg(figure)


def _gallery_row(recall: Recall, stream: ClassStream, shown: Images) -> dict[str, Any]:
    """The content of a row of the gallery: the query, and its neighbors as they looked when their slots were last written."""
    target, answer = int(stream.classes[recall.step]), recall.answer
    columns = (recall.neighbor_steps, recall.labels, recall.similarities, recall.ages)
    return {
        "picture": _picture(shown[recall.step]),
        "target": target,
        "verdict": "right" if answer == target else "wrong",
        "new": answer != target and stream.showing[recall.step] == 1,
        "neighbors": [
            {"picture": _picture(shown[step]), "label": label, "similarity": similarity, "age": age}
            for step, label, similarity, age in zip(*columns, strict=True)
        ],
    }


def _picture(image: NDArray[np.float32]) -> str:
    """The image as a data URL of a PNG."""
    from matplotlib.image import imsave

    content = io.BytesIO()
    imsave(content, 1 - image, cmap="gray", vmin=0, vmax=1, format="png", metadata={"Software": ""})
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"
