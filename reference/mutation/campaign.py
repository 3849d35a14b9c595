"""Runs the laws on a sample of mutants, several at a time, and writes the outcomes to a file, a line each."""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import inspect
import json
import pkgutil
import selectors
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import raremem
from raremem.errors import ConfigError
from raremem.files import replace_file
from raremem.reference.laws import LAWS
from raremem.reference.mutation.explained import EXPLAINED
from raremem.reference.mutation.operators import Mutant, mutants
from raremem.reference.mutation.players import installed
from raremem.reference.mutation.trial import AT_LEAST, TIMES, Outcome, Reached, Reaching, Running, Try

TABLE = "raremem.adapters.numpy"
OTHER_ROOMS = ("adapters", "reference", "benchmarks", "command")
FEWEST = 5
"""Mutants of each module in a large sample, at least, if the module has so many."""
FIRST, TIMES_MORE = 1.5, 4.0
"""Seconds of laws that a mutant is tried on at first, and the factor by which they grow each time that it survives."""
HELD_BY_TESTS = {
    "raremem.files": "writing a file in place of another, and locks on files; `tests/test_files.py`",
    "raremem.guard": "turns between threads, and signals; `tests/test_threads.py`",
    "raremem.registry": "which frameworks are installed, and why not; a law is given its backend. `tests/test_package.py`",
    "raremem.watch": "which arrays are written to behind the back of a memory; `tests/test_shadow.py`",
}
"""Modules without mutants, since no law on one backend in one thread can tell; what they do, and the tests that hold them."""


def modules() -> dict[str, Path]:
    """The files of the modules with mutants: `core/` without `HELD_BY_TESTS`, and the NumPy table."""
    names = [name for name in _below(raremem.__path__, "raremem.") if name.split(".")[1] not in OTHER_ROOMS]
    names = [name for name in names if name not in HELD_BY_TESTS]
    return {name: Path(str(importlib.util.find_spec(name).origin)) for name in sorted([*names, TABLE])}  # type: ignore[union-attr]


def _below(path: Iterable[str], prefix: str) -> Iterator[str]:
    for found in pkgutil.iter_modules(path, prefix):
        if found.name.split(".")[1] in OTHER_ROOMS:
            continue
        yield found.name
        if found.ispkg:
            yield from _below(importlib.import_module(found.name).__path__, f"{found.name}.")


def all_mutants() -> list[Mutant]:
    """The mutants of all these modules."""
    return [mutant for name, path in modules().items() for mutant in mutants(name, path.read_text())]


def sample(every: Sequence[Mutant], seed: int, count: int) -> list[Mutant]:
    """A sample of `count` mutants: some of every module, and the rest in proportion to the mutants that each module has.

    Within a module the mutants with the lowest hash of seed and key are drawn. So samples are the same on any machine, and most
    mutants stay in the sample when code changes or the sample grows.
    """
    by_module: dict[str, list[Mutant]] = {}
    for mutant in sorted(every, key=lambda mutant: hashlib.sha256(f"{seed} {mutant.key}".encode()).digest()):
        by_module.setdefault(mutant.module, []).append(mutant)
    few = min(FEWEST, count // (2 * max(1, len(by_module))))
    share = {name: min(few, len(some)) for name, some in by_module.items()}
    rest, left = {name: len(some) - share[name] for name, some in by_module.items()}, max(0, count - sum(share.values()))
    total = max(1, sum(rest.values()))
    exact = {name: min(float(some), left * some / total) for name, some in rest.items()}
    share = {name: few + int(exact[name]) for name, few in share.items()}
    by_remainder = sorted(exact, key=lambda name: (int(exact[name]) - exact[name], name))
    for name in by_remainder[: max(0, count - sum(share.values()))]:
        share[name] += share[name] < len(by_module[name])
    chosen = [mutant for name, some in by_module.items() for mutant in some[: share[name]]]
    return sorted(chosen, key=lambda mutant: hashlib.sha256(f"{seed} {mutant.key}".encode()).digest())


@dataclass
class Kit:
    """All pairs of player and law, what each reaches, and which have killed most mutants so far."""

    examples: int
    reach: dict[Try, Reached]
    most: float = float("inf")
    """Seconds of laws that a mutant is tried on, at most."""
    tried: Counter[Try] = field(default_factory=Counter)
    killed: Counter[Try] = field(default_factory=Counter)

    @classmethod
    def of(
        cls,
        players: Sequence[str],
        examples: int,
        tell: Callable[[str], None],
        most: float = float("inf"),
        jobs: int = 1,
        kept: Path | None = None,
    ) -> Kit:
        """Run every law without a mutant, to find what it reaches. What an earlier run has stored in `kept` is used."""
        found = {one: what for one, what in (_kept_reach(kept, examples) if kept else {}).items() if one[0] in players}
        for first in range(0, len(players), jobs):
            some = [
                Reaching(player, examples, map(str, modules().values()), [law for name, law in found if name == player])
                for player in players[first : first + jobs]
            ]
            for one, laws in [(one.player, one.laws()) for one in some]:
                tell(f"{one}: {len(laws)} laws hold without a mutant, {sum(each.seconds for each in laws.values()):.0f} s")
                found.update({(one, law): what for law, what in laws.items()})
            if kept:
                _keep_reach(kept, examples, found)
        return cls(examples, found, most)

    def for_mutant(self, mutant: Mutant) -> list[Try]:
        """The pairs that reach a mutant, first those that are most likely to kill it for the time they take. After a law on one
        player the same law on another counts less."""
        lines = _lines_of(mutant)
        tries = [one for one, what in self.reach.items() if lines is None or not what.lines.isdisjoint(lines)]
        ordered = sorted(tries, key=self._worth, reverse=True)
        before, worth = Counter[str](), {}
        for one in ordered:
            before[one[1]] += 1
            worth[one] = self._worth(one) / before[one[1]]
        return sorted(ordered, key=lambda one: worth[one], reverse=True)

    def _worth(self, one: Try) -> float:
        return (1 + self.killed[one]) / (2 + self.tried[one]) / (0.1 + self.reach[one].seconds)

    def round(self, tries: Sequence[Try], seconds: float) -> list[Try]:
        """The first of these pairs that take so many seconds without a mutant; at least one."""
        ends = list(accumulate(self.reach[one].seconds for one in tries))
        return list(tries[: max(1, sum(end <= seconds for end in ends))])

    def limits(self, tries: Iterable[Try]) -> list[float]:
        """The limit of each pair, in seconds of a processor."""
        return [AT_LEAST + TIMES * self.reach[one].seconds for one in tries]

    def learn(self, tries: Sequence[Try], outcome: Outcome) -> None:
        """Count which pairs were tried, and which killed."""
        self.tried.update(tries[: outcome.tries])
        if outcome.outcome != "survived" and outcome.tries:
            self.killed[tries[outcome.tries - 1]] += 1


def _law_digests(examples: int) -> dict[str, str]:
    """For each law a digest of the code that is mutated, the text of the law, and the number of examples."""
    code = digest(modules().values())
    texts = {name: f"{code} {examples} {inspect.getsource(law.check)}" for name, law in LAWS.items()}
    return {name: hashlib.sha256(text.encode()).hexdigest()[:16] for name, text in texts.items()}


def _keep_reach(path: Path, examples: int, found: Mapping[Try, Reached]) -> None:
    digests = _law_digests(examples)
    lines = [[player, law, digests[law], sorted(what.lines), what.seconds] for (player, law), what in found.items()]
    replace_file(path, "".join(json.dumps(line) + "\n" for line in lines).encode())


def _kept_reach(path: Path, examples: int) -> dict[Try, Reached]:
    """What the file holds of laws whose digest is the same."""
    digests = _law_digests(examples)
    said = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return {
        (player, law): Reached({(file, line) for file, line in lines}, seconds)
        for player, law, of, lines, seconds in said
        if digests.get(law) == of
    }


def _lines_of(mutant: Mutant) -> set[tuple[str, int]] | None:
    """The lines of its statement; None outside of functions, and for a default, which every law reaches."""
    path = modules()[mutant.module]
    functions = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]
    if not any(node.body[0].lineno <= mutant.first <= (node.end_lineno or 0) for node in functions):
        return None
    return {(str(path), line) for line in range(mutant.first, mutant.last + 1)}


@dataclass
class _Waiting:
    """A mutant that is to be tried, perhaps again: its pairs of player and law, and the seconds of the next round."""

    mutant: Mutant
    tries: list[Try] | None = None
    done: int = 0
    spent: float = 0.0
    seconds: float = FIRST


def try_all(
    chosen: Sequence[Mutant],
    kit: Kit,
    jobs: int,
    took: Callable[[Mutant, Outcome], None],
    until: float = float("inf"),
) -> None:
    """Try each mutant, `jobs` at a time, on the laws that are most likely to kill it; then survivors on more laws.

    `took` is called with each outcome. After the time `until` of `time.monotonic` no mutant is begun. An interrupt ends the
    processes under way.
    """
    waiting, running = deque(map(_Waiting, chosen)), selectors.DefaultSelector()
    try:
        while waiting or running.get_map():
            while waiting and len(running.get_map()) < jobs:
                one = waiting.popleft()
                if time.monotonic() > until:
                    waiting.clear()
                    break
                tries = one.tries = kit.for_mutant(one.mutant) if one.tries is None else one.tries
                now = kit.round(tries[one.done :], one.seconds)
                trial = Running(one.mutant.module, one.mutant.source, now, kit.limits(now), kit.examples)
                running.register(trial, selectors.EVENT_READ, (one, now))
            for key, _ in running.select(timeout=1.0):
                trial, (one, now) = key.fileobj, key.data  # type: ignore[assignment]
                if trial.hear():
                    running.unregister(trial)
                    outcome = trial.outcome()
                    kit.learn(now, outcome)
                    if _goes_on(one, outcome, kit.most):
                        waiting.append(one)
                    left = len(one.tries or ()) - one.done if outcome.outcome == "survived" else 0
                    took(one.mutant, replace(outcome, seconds=round(one.spent, 2), tries=one.done, left=left))
            for key in list(running.get_map().values()):
                key.fileobj.stop_if_late()  # type: ignore[union-attr]
    finally:
        for key in list(running.get_map().values()):
            key.fileobj.stop()  # type: ignore[union-attr]
            key.fileobj.outcome()  # type: ignore[union-attr]


def _goes_on(one: _Waiting, outcome: Outcome, most: float) -> bool:
    """Whether a mutant has survived and is to be tried on more laws; counts what was done."""
    one.done, one.spent, begun = one.done + outcome.tries, one.spent + outcome.seconds, one.seconds
    one.seconds *= TIMES_MORE
    return outcome.outcome == "survived" and one.done < len(one.tries or ()) and begun < most


class Results:
    """The outcomes so far: a file with a head, and a line for each outcome. The last line of a mutant counts.

    A mutant that was killed is not tried again. A survivor is, if laws have changed, or if it was not tried on all of them.
    """

    def __init__(self, path: Path, head: Mapping[str, Any], kit: str = "") -> None:
        self.path, self.kit = path, kit
        self.outcomes: dict[str, Outcome] = {}
        if path.exists():
            said, self.outcomes = read(path)
            if said != dict(head):
                changed = ", ".join(name for name in head if said.get(name) != head[name])
                raise ConfigError(
                    f"{path} is of another run ({changed} differ); expected one to go on with. Name another file."
                )
            content = path.read_bytes()
            path.write_bytes(content[: content.rindex(b"\n") + 1])
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, (json.dumps(dict(head)) + "\n").encode())

    def add(self, mutant: Mutant, outcome: Outcome) -> None:
        """Write an outcome."""
        before = self.outcomes.get(mutant.key)
        late = before is not None and (before.late or before.kit != self.kit)
        outcome = self.outcomes[mutant.key] = replace(outcome, kit=self.kit, late=late)
        with self.path.open("a") as file:
            file.write(json.dumps({"key": mutant.key, **asdict(outcome)}) + "\n")

    def lacks(self, mutant: Mutant, seconds: float) -> bool:
        """Whether a mutant is to be tried, perhaps again."""
        outcome = self.outcomes.get(mutant.key)
        if outcome is None or outcome.outcome != "survived":
            return outcome is None
        return outcome.kit != self.kit or (outcome.left > 0 and outcome.seconds < seconds)


def read(path: Path) -> tuple[dict[str, Any], dict[str, Outcome]]:
    """The head of a file of results, and the outcomes by the key of the mutant. A last line that was cut short is ignored."""
    head, *lines = path.read_text().splitlines(keepends=True)
    found = [json.loads(line) for line in lines if line.endswith("\n")]
    return json.loads(head), {each.pop("key"): Outcome(**each) for each in found}


def kit_paths() -> list[Path]:
    """The files that decide what laws do."""
    here = Path(__file__).parents[1]
    return sorted([*here.glob("*.py"), *(here / "laws").glob("*.py"), here / "mutation" / "players.py"])


def digest(paths: Iterable[Path]) -> str:
    """A digest of files: the code that is mutated, or the kit."""
    content = hashlib.sha256()
    for path in paths:
        content.update(path.name.encode() + b"\0" + path.read_bytes())
    return content.hexdigest()[:16]


@dataclass(frozen=True)
class Sample:
    """Which mutants to try: `count` drawn by `seed`; or those that survived in the results `only`, perhaps of older code."""

    seed: int
    count: int
    only: Path | None = None

    def draw(self, every: Sequence[Mutant], tell: Callable[[str], None]) -> list[Mutant]:
        """The mutants of the sample, out of all."""
        if self.only is None:
            return sample(every, self.seed, self.count)
        survived = {key for key, outcome in read(self.only)[1].items() if outcome.outcome == "survived"}
        chosen = [mutant for mutant in every if mutant.key in survived]
        tell(f"{len(survived)} survived by {self.only}; {len(survived) - len(chosen)} of them are no longer in the code")
        return chosen


@dataclass(frozen=True)
class Run:
    """The outcomes of a sample: of the mutants that were tried, in the order of the sample."""

    sample: Sample
    examples: int
    mutants: list[Mutant]
    total: int
    outcomes: dict[str, Outcome]
    seconds: float = float("inf")
    """Seconds of laws for each mutant, at most."""
    drawn: int = 0


@dataclass(frozen=True)
class Limits:
    """How much to try.

    Attributes:
        jobs: mutants at a time.
        examples: cases for each law.
        seconds: seconds of laws for each mutant, by what they take without one.
        minutes: after so many minutes no mutant is begun.
    """

    jobs: int = 1
    examples: int = 50
    seconds: float = float("inf")
    minutes: float = float("inf")


def run(drawn: Sample, limits: Limits, results: Path, tell: Callable[[str], None]) -> Run:
    """Try every mutant of a sample, or go on with an earlier run.

    Args:
        drawn: the sample.
        limits: how much to try.
        results: the file for outcomes; those that it holds are not tried again.
        tell: is called with a line for each event.

    Raises:
        ConfigError: `results` is of another sample or of other code, or a law breaks without any mutant.
    """
    every, players = all_mutants(), tuple(installed())
    chosen = drawn.draw(every, tell)
    head = {**asdict(drawn), "only": drawn.only and str(drawn.only), "examples": limits.examples}
    kit = f"{digest(kit_paths())} {', '.join(players)}"
    kept = Results(results, {**head, "code": digest(modules().values())}, hashlib.sha256(kit.encode()).hexdigest()[:16])
    reasons = {each.key for each in EXPLAINED} & set(kept.outcomes)  # a survivor with a reason is not tried again
    left = [mutant for mutant in chosen if mutant.key not in reasons and kept.lacks(mutant, limits.seconds)]
    left.sort(key=lambda mutant: mutant.key in kept.outcomes)
    tell(f"{len(chosen)} of {len(every)} mutants, {len(chosen) - len(left)} of them tried before")
    until = time.monotonic() + 60 * limits.minutes
    if left:
        if any(name.startswith("torch") for name in players):
            importlib.import_module("torch")  # once, and not by every process
        laws = Kit.of(players, limits.examples, tell, limits.seconds, limits.jobs, results.with_suffix(".reach"))

        def took(mutant: Mutant, outcome: Outcome) -> None:
            kept.add(mutant, outcome)
            where = f" by {outcome.law} on {outcome.player}" if outcome.outcome != "survived" else f" {outcome.tries} tries"
            tell(f"{len(kept.outcomes)}/{len(chosen)} {outcome.seconds:6.1f} s {outcome.outcome}{where}: {mutant.key}")

        try_all(left, laws, limits.jobs, took, until)
    tried = [mutant for mutant in chosen if mutant.key in kept.outcomes]
    return Run(drawn, limits.examples, tried, len(every), kept.outcomes, limits.seconds, len(chosen))
