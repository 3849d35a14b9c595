"""The mutation tool: what it changes, that it tells the killed from the survivors, and that no reason is stale."""

import importlib.util
import json
import os
import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path

import pytest

import raremem
from raremem.command.cli import main
from raremem.reference.mutation import campaign, trial
from raremem.reference.mutation.explained import EXPLAINED
from raremem.reference.mutation.operators import mutants
from raremem.reference.mutation.reason import Explained
from raremem.reference.mutation.report import Report
from raremem.reference.mutation.trial import Outcome

SOURCE = '''
"""Two or one."""

LIMIT = 2
Rows = dict[str, int]


def nearest(x: int, low: float = 0.5) -> int:
    """At least 1."""
    if x < LIMIT and not x == 7:
        raise ValueError(f"{x} is below {LIMIT}; expected 2 or more.")
    x = max(x, 3)
    x[1:] = True
    return np.where(x > 0, x, -x)
'''


def changes(source=SOURCE):
    return {(mutant.operator, mutant.before, mutant.after) for mutant in mutants("some.module", source)}


@pytest.fixture(scope="module")
def every():
    return campaign.all_mutants()


def test_every_kind_of_change_is_made_of_a_function():
    head, last = "if x < LIMIT and not x == 7:", "return np.where(x > 0, x, -x)"
    rebound = "x = max(x, 3)"
    assert changes() == {
        ("constant", "LIMIT = 2", "LIMIT = 3"),
        ("constant", "LIMIT = 2", "LIMIT = 1"),
        *(
            (
                "constant",
                """def nearest(x: int, low: float = 0.5) -> int:""",
                f"def nearest(x: int, low: float = {value}) -> int:",
            )
            for value in ("1.5", "-0.5")
        ),
        ("condition turned round", head, "if not (x < LIMIT and not x == 7):"),
        ("condition always false", head, "if False:"),
        ("condition always true", head, "if True:"),
        ("comparison", head, "if x <= LIMIT and not x == 7:"),
        ("comparison", head, "if x >= LIMIT and not x == 7:"),
        ("comparison", head, "if x < LIMIT and not x != 7:"),
        ("and, or", head, "if x < LIMIT or not x == 7:"),
        ("one side", head, "if (x < LIMIT):"),
        ("one side", head, "if (not x == 7):"),
        ("sign or negation dropped", head, "if x < LIMIT and x == 7:"),
        ("constant", head, "if x < LIMIT and not x == 8:"),
        ("constant", head, "if x < LIMIT and not x == 6:"),
        ("statement dropped", 'raise ValueError(f"{x} is below {LIMIT}; expected 2 or more.")', "pass"),
        ("statement dropped", rebound, "pass"),
        ("its opposite", rebound, "x = min(x, 3)"),
        ("arguments swapped", rebound, "x = max(3, x)"),
        ("call left out", rebound, "x = x"),
        ("constant", rebound, "x = max(x, 4)"),
        ("constant", rebound, "x = max(x, 2)"),
        ("statement dropped", "x[1:] = True", "pass"),
        ("constant", "x[1:] = True", "x[1:] = False"),
        ("nothing returned", last, "return None"),
        ("comparison", last, "return np.where(x >= 0, x, -x)"),
        ("comparison", last, "return np.where(x <= 0, x, -x)"),
        ("constant", last, "return np.where(x > 1, x, -x)"),
        ("constant", last, "return np.where(x > -1, x, -x)"),
        ("arguments swapped", last, "return np.where(x, x > 0, -x)"),
        ("arguments swapped", last, "return np.where(x > 0, -x, x)"),
        ("one branch", last, "return x"),
        ("one branch", last, "return (-x)"),
        ("sign or negation dropped", last, "return np.where(x > 0, x, x)"),
    }


def test_a_change_stands_in_the_text_and_nowhere_else():
    for mutant in mutants("some.module", SOURCE):
        before, after = SOURCE.splitlines(), mutant.source.splitlines()
        assert [one for one, other in zip(before, after, strict=True) if one != other] == [before[mutant.line - 1]]
        assert mutant.after.split()[0] in after[mutant.line - 1]


def test_a_key_does_not_depend_on_other_lines_and_is_one_mutants_own(every):
    moved = mutants("some.module", f"import numpy as np\n\nOTHER = 1\n{SOURCE}")
    assert {mutant.key for mutant in mutants("some.module", SOURCE)} <= {mutant.key for mutant in moved}
    assert len({mutant.key for mutant in every}) == len(every)


def test_mutants_are_programs(every):
    for mutant in campaign.sample(every, 1, 150):
        compile(mutant.source, mutant.module, "exec")


def test_the_same_seed_draws_the_same_sample_whatever_the_machine(every):
    program = (
        "from raremem.reference.mutation import campaign\n"
        "for mutant in campaign.sample(campaign.all_mutants(), 3, 60): print(mutant.key)"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env={**os.environ, "PYTHONHASHSEED": "7"}
    )
    here = [mutant.key for mutant in campaign.sample(every, 3, 60)]
    assert run.stdout.splitlines() == here
    assert here != [mutant.key for mutant in campaign.sample(every, 4, 60)]


def test_a_sample_has_so_many_and_some_of_every_module(every):
    chosen = campaign.sample(every, 0, 400)
    assert len(chosen) == len({mutant.key for mutant in chosen}) == 400
    of = Counter(mutant.module for mutant in every)
    found = Counter(mutant.module for mutant in chosen)
    assert set(found) == set(of)
    assert all(found[name] >= min(campaign.FEWEST, count) for name, count in of.items())
    assert {"raremem.rules.query", "raremem.search.portable", campaign.TABLE} <= set(found)


def test_what_users_do_not_run_is_not_changed(every):
    for mutant in every:
        assert "__all__" not in mutant.before
        assert not mutant.before.startswith(("import ", "from ", "assert ", '"""', "@"))
        assert mutant.after.startswith("pass") or not mutant.before.startswith("raise "), mutant.key


# Trying


TRIALS = """
    import json
    from raremem.reference.laws import LAWS
    from raremem.reference.mutation import campaign
    from raremem.reference.mutation.campaign import Kit, modules
    from raremem.reference.mutation.trial import Running

    LAW, PLAYER = "noise_agrees_to_the_bit", "numpy"
    source = modules()["raremem.rules.noise"].read_text()
    last = "    return _xor_shifted(p, bits, 16)\\n"
    assert source.count(last) == 1
    texts = {
        "unchanged": source,
        "equivalent": source.replace("(2 * config.age_noise + 1)", "(1 + 2 * config.age_noise)"),
        "wrong": source.replace(last, "    return bits\\n"),
        "endless": source.replace(last, "    while True:\\n        pass\\n"),
        "fatal": source.replace(last, "    import os; os.abort()\\n"),
        "no program": source + "\\nundefined\\n",
    }
    assert len(set(texts.values())) == len(texts)
    for name, text in texts.items():
        running = Running("raremem.rules.noise", text, [(PLAYER, LAW)] * 2, [1.0] * 2, 5)
        while not running.hear():
            pass
        outcome = running.outcome()
        print(json.dumps([name, outcome.outcome, outcome.player, outcome.law, outcome.tries]))
    for name in set(LAWS) - {LAW, "query_agrees"}:
        del LAWS[name]
    kit = Kit.of([PLAYER], 5, lambda line: None)
    starts = "raremem.rules.write:: ", "raremem.rules.noise:_mix", "raremem.search.live:_build:", "raremem.rules.query:query:"
    firsts = [next(mutant for mutant in campaign.all_mutants() if mutant.key.startswith(start)) for start in starts]
    print(json.dumps([[law for _, law in sorted(kit.for_mutant(mutant))] for mutant in firsts]))
"""


@pytest.fixture(scope="module")
def trials():
    """What comes of some texts of one module. In a process of its own: this one has threads, and is not to be forked."""
    if not hasattr(os, "fork"):
        pytest.skip("a system without fork")
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(TRIALS)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return [json.loads(line) for line in run.stdout.splitlines()]


def test_what_is_wrong_is_killed_and_what_is_not_survives(trials):
    law = ["numpy", "noise_agrees_to_the_bit"]
    assert trials[:-1] == [
        ["unchanged", "survived", "", "", 2],
        ["equivalent", "survived", "", "", 2],
        ["wrong", "killed", *law, 1],
        ["endless", "hung", *law, 1],
        ["fatal", "crashed", *law, 1],
        ["no program", "killed", "", "import", 0],
    ]


def test_a_mutant_is_tried_on_the_laws_that_run_its_function(trials):
    both = ["noise_agrees_to_the_bit", "query_agrees"]
    assert trials[-1] == [both, both[:1], [], both]


def test_a_law_that_is_broken_without_a_mutant_is_an_error():
    program = """
        from raremem.reference.laws import LAWS
        from raremem.reference.mutation.campaign import Kit
        LAWS.clear()
        from raremem.reference.laws.registry import law
        @law("0")
        def never(backend, case):
            raise AssertionError("by its nature")
        Kit.of(["numpy"], 1, print)
    """
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True)
    assert "ConfigError" in run.stderr
    assert "never" in run.stderr


def test_afterwards_the_code_is_as_it_was():
    before = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "raremem"}
    source = campaign.modules()["raremem.rules.noise"].read_text()
    with trial.planted("raremem.rules.noise", source + "\nPLANTED = True\n"):
        import raremem.rules.noise as changed

        assert changed.PLANTED
        assert "raremem.adapters.torch" not in sys.modules
        assert sys.modules["raremem"] is not raremem
    assert {name: module for name, module in sys.modules.items() if name.split(".")[0] == "raremem"} == before
    assert not hasattr(sys.modules["raremem.rules.noise"], "PLANTED")
    assert not any(type(finder) is trial._Finder for finder in sys.meta_path)


# Results and reasons


def head(**changed):
    return {"seed": 0, "count": 2, "code": "a", **changed}


def test_a_run_that_was_stopped_goes_on(tmp_path):
    path = tmp_path / "out" / "mutants.jsonl"
    one, other = mutants("some.module", SOURCE)[:2]
    campaign.Results(path, head()).add(one, Outcome("killed", "numpy", "a_law", 0.5, 3))
    with path.open("a") as file:
        file.write('{"key": "half a li')
    again = campaign.Results(path, head())
    assert again.outcomes == {one.key: Outcome("killed", "numpy", "a_law", 0.5, 3)}
    again.add(other, Outcome("survived", tries=9))
    later = campaign.Results(path, head(), "other laws")
    assert later.outcomes[other.key].outcome == "survived"
    assert [again.lacks(mutant, 9.0) for mutant in (one, other)] == [False, False]
    assert [later.lacks(mutant, 9.0) for mutant in (one, other)] == [False, True]
    with pytest.raises(raremem.ConfigError, match=r"of another run \(code differ"):
        campaign.Results(path, head(code="b"))


def test_only_what_survived_is_tried_again(tmp_path):
    some = mutants("some.module", SOURCE)
    results = campaign.Results(tmp_path / "first.jsonl", head())
    for mutant, outcome in zip(some[:3], ("killed", "survived", "survived"), strict=True):
        results.add(mutant, Outcome(outcome))
    said = []
    again = campaign.Sample(0, 400, tmp_path / "first.jsonl").draw(some[:2], said.append)
    assert again == [some[1]]
    assert "1 of them are no longer in the code" in said[0]


def report(*outcomes, explained=()):
    some = mutants("some.module", SOURCE)[: len(outcomes)]
    found = {mutant.key: Outcome(outcome, "numpy", "a_law") for mutant, outcome in zip(some, outcomes, strict=True)}
    reasons = [
        Explained("some.module", some[place].function, some[place].before, some[place].after, "No one sees.")
        for place in explained
    ]
    return Report(campaign.Run(campaign.Sample(0, len(some)), 50, some, 99, found), reasons), some


def test_a_survivor_needs_a_reason():
    made, some = report("killed", "hung", "crashed", "survived", "survived", explained=[3])
    assert made.failed
    assert (
        "5 mutants: 3 killed, 1 survivors explained, 1 left; of the 4 that a user could tell 75.0 % are killed" in made.text()
    )
    assert f"  - {some[4].before}\n  + {some[4].after}" in made.text()
    page = made.page()
    assert "| some.module | 5 | 3 | 1 | 1 |" in page
    assert page.count("No one sees.") == page.count("**not explained**") == 1
    assert "1 hung and 1 ended the process" in page


def test_what_some_user_could_tell_is_left_though_it_has_a_reason():
    made, some = report("killed", "survived", explained=[1])
    reason = Explained("some.module", some[1].function, some[1].before, some[1].after, "Threads alone can tell.", told=True)
    made = Report(made.run, [reason])
    assert "0 survivors explained, 1 left; of the 2 that a user could tell 50.0 % are killed" in made.score()
    assert "## What is left\n\nSome user could tell" in made.page()


def test_a_survivor_is_tried_on_more_laws_in_every_round():
    tries = [("numpy", law) for law in "abcdef"]
    kit = campaign.Kit(5, {one: trial.Reached({("file", 1)}, 1.0) for one in tries})
    assert kit.round(tries, 3.0) == tries[:3]
    assert kit.round(tries, 0.1) == tries[:1]


def test_modules_of_which_no_mutants_are_made_are_there_and_so_are_the_tests_that_hold_them(every):
    found = {mutant.module for mutant in every}
    for name, why in campaign.HELD_BY_TESTS.items():
        assert name not in found
        assert importlib.util.find_spec(name) is not None
        assert (Path(__file__).parents[1] / why.split("`")[1]).exists()


def test_with_reasons_for_all_the_run_passes_and_a_reason_for_what_is_killed_fails_it():
    assert not report("killed", "survived", explained=[1])[0].failed
    made, _ = report("killed", "killed", explained=[1])
    assert made.failed
    assert "explained, but killed" in made.text()


@pytest.mark.parametrize(("outcome", "status"), [("killed", 0), ("survived", 1)])
def test_the_command_writes_the_page_and_says_whether_a_survivor_is_left(outcome, status, tmp_path, monkeypatch, capsys):
    asked = []
    made, _ = report("killed", outcome)
    monkeypatch.setattr(campaign, "run", lambda *arguments: (asked.append(arguments), made.run)[1])
    page = tmp_path / "mutants.md"
    options = ["--seed", "5", "--count", "9", "--jobs", "3", "--results", str(tmp_path / "found.jsonl"), "--report", str(page)]
    assert main(["mutants", *options]) == status
    assert asked[0][:3] == (campaign.Sample(5, 9, None), campaign.Limits(3, 50), tmp_path / "found.jsonl")
    assert made.score() in page.read_text()
    assert made.score() in capsys.readouterr().out


def test_reasons_are_of_mutants_that_there_are(every):
    keys = {mutant.key for mutant in every}
    assert [each.key for each in EXPLAINED if each.key not in keys] == []
    assert len({each.key for each in EXPLAINED}) == len(EXPLAINED)
    assert all(each.reason.endswith(".") and len(each.reason) > 20 for each in EXPLAINED)


def test_the_page_is_of_these_reasons():
    page = Path(__file__).parents[1] / "docs" / "mutants.md"
    if page.exists():
        assert "**not explained**" not in page.read_text()
