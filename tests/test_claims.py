"""The page of benchmarks is made from the result files, is current, and takes the seeds of a task together."""

import json
import re

import pytest

from raremem.benchmarks.report import claims

RUNS = claims.results()
PAGE = claims.PAGE.read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`([\w-]+)`", PAGE)) & set(RUNS))


def moved(value, by):
    """What was measured, otherwise: all numbers with a point, in tables of text too. (Sizes are whole numbers.)"""
    if isinstance(value, dict):
        return {key: moved(inside, by) for key, inside in value.items()}
    if isinstance(value, list):
        return [moved(inside, by) for inside in value]
    if isinstance(value, str):
        return re.sub(r"^\d+\.\d+$", lambda number: f"{float(number[0]) + by:.1f}", value)
    return value + by if isinstance(value, float) else value


def row(page, start):
    """The cells of the one row of a page that begins so."""
    (found,) = (line for line in page.splitlines() if line.startswith(f"| {start}"))
    return found.strip("| ").split(" | ")


def test_the_page_is_current():
    assert claims.page(RUNS) == PAGE, "run python -m raremem.benchmarks.report.claims"


@pytest.mark.parametrize("name", NAMED)
def test_a_changed_figure_changes_the_page(name):
    """Of every result that the page names."""
    measured = {key: moved(RUNS[name][key], 1) for key in ("headline", "figures") if key in RUNS[name]}
    assert claims.page(RUNS | {name: RUNS[name] | measured}) != PAGE


@pytest.mark.parametrize("key", claims.PROVENANCE)
def test_where_a_result_is_from_is_on_the_page(key):
    result = RUNS["ranks-torch-0"]
    assert f"{key} of a test" in claims.page(RUNS | {"ranks-torch-0": result | {key: f"{key} of a test"}})


def test_a_result_without_its_origin_is_shown():
    result = {key: value for key, value in RUNS["ranks-torch-0"].items() if key not in claims.PROVENANCE}
    assert "`ranks-torch-0`, not recorded, not recorded, not recorded" in claims.page(RUNS | {"ranks-torch-0": result})


def said_of(stream):
    """How many % of the new words the memory said: shown once, twice, 6 to 20 times."""
    return [stream["systems"]["memory"]["words"][place]["percent"] for place in (1, 2, 4)]


def test_seeds_are_taken_together_in_one_row():
    one, others = RUNS["translation-torch-0"], {}
    for seed in (1, 2):
        figures, command = moved(one["figures"], seed), one["command"].replace("--seed 0", f"--seed {seed}")
        others[f"translation-torch-{seed}"] = one | {"figures": figures, "command": command}
    together = claims.page(RUNS | others)
    assert len(together.splitlines()) == len(PAGE.splitlines())
    streams = one["figures"]["streams"]
    calc = streams["LibreOffice Calc's help"]["systems"]["memory"]
    quarter = calc["last quarter"], calc["last quarter without near-duplicates"]
    said = said_of(streams["darktable's manual"])
    for start, before, after in [
        ("LibreOffice Calc's help, last quarter of", "{:.1f} ({:.1f})".format(*quarter),
         "{:.1f} ± 1.0 ({:.1f} ± 1.0)".format(*(figure + 1 for figure in quarter))),
        ("darktable's manual: new words", "; ".join(f"{percent:.1f}" for percent in said),
         "; ".join(f"{percent + 1:.1f} ± 1.0" for percent in said)),
    ]:  # fmt: skip
        assert row(PAGE, start)[2] == before
        assert row(together, start)[2] == after
    assert f"3 seeds, {one['figures']['run']['done']} batches" in together
    assert "`translation-torch-0`, `translation-torch-1`, `translation-torch-2`, 2026-11-28" in together
    assert "--minutes 30 --seed 0, 1, 2 --out" in together


def test_a_run_of_another_size_is_no_seed():
    runs = RUNS | {f"translation-torch-{seed}": {} for seed in ("1-large", "10", "2")}
    assert claims.seeds("translation-torch", runs=runs) == [f"translation-torch-{seed}" for seed in (0, 2, 10)]
    assert claims.seeds("translation-torch", "-large", runs=runs) == ["translation-torch-1-large"]
    with pytest.raises(ValueError, match=r"no result is named translation-torch-SEED-small\.json"):
        claims.seeds("translation-torch", "-small", runs=runs)


def test_a_figure_that_a_seed_has_not_is_left_out():
    """Where a stream has no word that was shown so often."""
    one = json.loads(json.dumps(RUNS["translation-torch-0"]))
    one["figures"]["streams"]["darktable's manual"]["systems"]["memory"]["words"][1]["percent"] = None
    page = claims.page(RUNS | {"translation-torch-1": one})
    once, *more = said_of(RUNS["translation-torch-0"]["figures"]["streams"]["darktable's manual"])
    expected = f"{once:.1f}; " + "; ".join(f"{percent:.1f} ± 0.0" for percent in more)
    assert row(page, "darktable's manual: new words")[2] == expected
    assert claims.spread([]) == "-"


def test_every_result_says_where_it_is_from():
    for name, result in RUNS.items():
        assert set(claims.PROVENANCE) <= set(result), name
        assert result["date"], name
