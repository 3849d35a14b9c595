"""The task `intents`: what an encoder's users gain by a memory, beside what scikit-learn has."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from raremem.benchmarks.progress import progress
from raremem.benchmarks.task import Findings, Setting, Table, Task
from raremem.benchmarks.tasks.intents.arriving import arriving
from raremem.benchmarks.tasks.intents.contenders import OURS
from raremem.benchmarks.tasks.intents.embeddings import Encoder, embed_all, encoder_name
from raremem.benchmarks.tasks.intents.few_shot import Figures, few_shot
from raremem.benchmarks.tasks.intents.pixels import learned, pixel_sets, pixels
from raremem.benchmarks.tasks.intents.rates import rates

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KEPT = (1_000, 100_000, 1_000_000)


@dataclass(frozen=True)
class Plan:
    """How much is done.

    Attributes:
        draws: of the rows that are learned.
        shots: examples of an intent.
        first: intents that the map is trained on, before the others arrive.
        pixels: whether frozen pixels are tried.
        encoder: by default the task's.
    """

    draws: int = 5
    shots: tuple[int, ...] = (5, 10)
    first: int = 100
    pixels: bool = True
    encoder: Encoder | None = None


def run(setting: Setting, plan: Plan | None = None) -> Findings:
    """Every case but the rates. It takes what it takes, whatever `setting.minutes`.

    Raises:
        DataError: the data is not CLINC150 and Banking77.
        MissingPackageError: scikit-learn or sentence-transformers is not installed.
    """
    assert setting.data is not None
    plan = plan or Plan()
    embedded = embed_all(setting.data, setting.out, plan.encoder)
    seeds = range(setting.seed, setting.seed + plan.draws)
    shot = {
        f"{name}, {shots} shots": few_shot(data, shots, plan.draws, setting.seed, setting.backend, f"{name}, {shots} shots")
        for name, data in embedded.items()
        for shots in plan.shots
    }
    clinc = embedded["CLINC150"]
    arrived = [
        arriving(clinc, max(plan.shots), plan.first, seed, setting.backend) for seed in progress(seeds, "classes arrive")
    ]
    sets = pixel_sets() if plan.pixels else {}
    pixel = {name: [pixels(part, seed, setting.backend) for seed in progress(seeds, name)] for name, part in sets.items()}
    mapped = {name: learned(part, setting.seed, setting.backend) for name, part in sets.items()}
    figures = {
        "few shots": shot,
        "arriving": arrived,
        "pixels": pixel,
        "pixels, learned map": mapped,
        "encoder": encoder_name(),
    }
    return Findings(
        headline=_headline(shot, arrived),
        figures=figures,
        tables=_tables(shot, arrived, pixel),
        plots=partial(_plots, arrived),
        facts={"encoder": encoder_name(), "draws": str(plan.draws)},
        notes=["Mean ± standard deviation over the draws. Accuracy in %; of known and unknown questions those refused, in %."],
    )


def run_rates(setting: Setting, kept: tuple[int, ...] = KEPT) -> Findings:
    """The rates, with so many rows kept, in about `setting.minutes`.

    Raises:
        MissingPackageError: scikit-learn is not installed.
    """
    seconds = 60 * setting.minutes / (6 * len(kept))
    found = {f"{rows:,}": rates(rows, seconds, setting.seed, setting.backend) for rows in progress(kept, "rates")}
    names = list(next(iter(found.values())))
    table = [["", *found], *([name, *(f"{some[name]:,.0f}" for some in found.values())] for name in names)]
    headline = {f"{rows} rows: {name}": number for rows, some in found.items() for name, number in some.items()}
    return Findings(headline, {"rates": found}, {"A second, by rows kept": table})


def _headline(shot: dict[str, Figures], arrived: list[dict[str, Any]]) -> dict[str, float]:
    ours = {
        f"{case}: {figure}": statistics.mean(numbers)
        for case, contenders in shot.items()
        for figure, numbers in contenders[OURS].items()
    }
    return ours | {f"classes arrive: {name}": statistics.mean(run[name] for run in arrived) for name in _scalars(arrived)}


def _scalars(runs: list[dict[str, Any]]) -> list[str]:
    return [name for name, value in runs[0].items() if not isinstance(value, list)]


def _tables(
    shot: dict[str, Figures], arrived: list[dict[str, Any]], pixel: dict[str, list[dict[str, float]]]
) -> dict[str, Table]:
    tables: dict[str, Table] = {}
    for case, contenders in shot.items():
        figures = list(contenders[OURS])
        rows = [[name, *(spread(found[figure], figure) for figure in figures)] for name, found in contenders.items()]
        tables[case] = [["", *figures], *rows]
    tables["Classes arrive (CLINC150)"] = [["", "mean ± sd"]] + [
        [name, spread([run[name] for run in arrived])] for name in _scalars(arrived)
    ]
    for name, runs in pixel.items():
        tables[name] = [["", "mean ± sd"]] + [[figure, spread([run[figure] for run in runs])] for figure in runs[0]]
    return tables


def spread(numbers: list[float], figure: str = "") -> str:
    """Mean ± standard deviation."""
    digits = 3 if figure == "AUROC" else 1
    deviation = statistics.stdev(numbers) if len(numbers) > 1 else 0.0
    return f"{statistics.mean(numbers):.{digits}f} ± {deviation:.{digits}f}"


def _plots(arrived: list[dict[str, Any]]) -> list[Figure]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for run in arrived:
        axes.plot(*zip(*run["curve"], strict=True), color="C0", alpha=0.6)
    axes.set(xlabel="intents known", ylabel="right answers among them, %")
    axes.grid(alpha=0.3)
    return [figure]


TASK = Task(
    "Intents: classes that keep arriving, on frozen sentence embeddings",
    "scikit-learn and sentence-transformers (extra intents); about a quarter of an hour of a core",
    15.0,
    run,
    "intents",
    backends=("numpy", "torch", "jax"),
)
RATES = Task(
    "Intents: questions and updates a second, beside scikit-learn and faiss",
    "scikit-learn (extra sklearn); some minutes, best with nothing else running",
    3.0,
    run_rates,
    backends=("numpy", "torch", "jax"),
)
