"""What came out: the tables that are printed, and one self-contained HTML page."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raremem.benchmarks.data.characters import Images
from raremem.benchmarks.demo.stream import Answers, Recall, Stream
from raremem.benchmarks.report.pages import Table, fact_list, html_table, inline_svg, page

SHOWINGS = (1, 2, 3, 5, 10)
LAGS = ((1, 9), (10, 99), (100, 999), (1_000, 9_999))
FEW = 20
"""Of fewer showings than this no accuracy is drawn."""


def accuracy_by_showing(stream: Stream, answers: Answers) -> Table:
    """A row for each method: accuracy in % on the 1st, 2nd, ... showing of a class."""
    header = ["showing", *(f"{showing}." for showing in SHOWINGS), "all but 1st"]
    return [header, *_rows(stream, answers, [stream.showing == showing for showing in SHOWINGS], stream.showing > 1)]


def accuracy_by_lag(stream: Stream, answers: Answers) -> Table:
    """A row for each method: accuracy in % by how many steps ago the class was last seen."""
    header = ["last seen, steps ago", *(f"{low:,} to {high:,}" for low, high in LAGS), "all but 1st"]
    picked = [(stream.lag >= low) & (stream.lag <= high) for low, high in LAGS]
    return [header, *_rows(stream, answers, picked, stream.showing > 1)]


def _rows(stream: Stream, answers: Answers, picked: list[NDArray[Any]], rest: NDArray[Any]) -> Table:
    rows = [["showings", *(f"{rows.sum():,}" for rows in (*picked, rest))]]
    for name, given in answers.by_method.items():
        right = given == stream.classes
        rows.append([name, *(f"{100 * right[rows].mean():.1f}" if rows.any() else "-" for rows in (*picked, rest))])
    return rows


def as_html(title: str, facts: dict[str, str], stream: Stream, answers: Answers, shown: Images) -> str:
    """The page: curves, tables and a gallery of what the memory retrieved. `shown` [steps, 28, 28] is the stream."""
    tables = (accuracy_by_showing(stream, answers), accuracy_by_lag(stream, answers))
    gallery = "".join(_gallery_row(recall, stream, shown) for recall in answers.recalls)
    return page(
        title,
        f"""<p>A network was trained with the memory on other characters. Then these came by once, in one stream, with no
gradient step and no reset: each was asked for, answered, and then learned. On the first
showing of a class nobody can be right.</p>
{fact_list(facts)}
<h2>Accuracy</h2>
{_curves(stream, answers)}
{"".join(html_table(table) for table in tables)}
<h2>What the memory retrieved</h2>
<p>The last steps of the stream: the query, then its nearest neighbors, as they were shown when their slot was last written.
Similarity is the cosine; age is in steps.</p>
{gallery}""",
    )


def _curves(stream: Stream, answers: Answers) -> str:
    """Two plots as one inline SVG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    by_showing, by_lag = figure.subplots(1, 2, sharey=True)
    showings = np.arange(1, stream.showing.max() + 1)
    lags = {f"{low:,}-{high:,}": (stream.lag >= low) & (stream.lag <= high) for low, high in LAGS}
    lags = {label: rows for label, rows in lags.items() if rows.sum() >= FEW}
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


def _gallery_row(recall: Recall, stream: Stream, shown: Images) -> str:
    target = int(stream.classes[recall.step])
    verdict = "right" if recall.answer == target else "wrong"
    if stream.showing[recall.step] == 1:
        verdict = "wrong: never seen before" if recall.answer != target else verdict
    neighbors = "".join(
        f"<div>{_picture(shown[step])}class {label}<br>sim {similarity:.3f}<br>age {age:,}</div>"
        for step, label, similarity, age in zip(
            recall.neighbor_steps, recall.labels, recall.similarities, recall.ages, strict=True
        )
    )
    css = verdict.partition(":")[0]
    return (
        f'<div class="row"><div class="query">{_picture(shown[recall.step])}class {target}<br>'
        f'<b class="{css}">{verdict}</b></div>{neighbors}</div>'
    )


def _picture(image: NDArray[np.float32]) -> str:
    """An image as a PNG inside the page."""
    from matplotlib.image import imsave

    content = io.BytesIO()
    imsave(content, 1 - image, cmap="gray", vmin=0, vmax=1, format="png", metadata={"Software": ""})
    return f'<img alt="" src="data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}">'
