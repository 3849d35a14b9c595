"""A sample of mutants, each tried on the laws that reach it, several at a time. What comes out goes to a file, line by line."""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import json
import pkgutil
import selectors
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import raremem
from raremem.errors import ConfigError
from raremem.reference.mutation.operators import Mutant, mutants
from raremem.reference.mutation.players import installed
from raremem.reference.mutation.trial import AT_LEAST, TIMES, Outcome, Reached, Running, Try, reached

TABLE = "raremem.adapters.numpy"
OTHER_ROOMS = ("adapters", "reference", "benchmarks")
FEWEST = 5
"""Mutants of a module in a sample, if it has so many, and the sample is large."""
LINE = ("", 0)
"""The function of a statement outside of all functions, which every law reaches."""


def modules() -> dict[str, Path]:
    """The files of the modules of which mutants are made: all of `core/`, and the NumPy table."""
    names = [name for name in _below(raremem.__path__, "raremem.") if name.split(".")[1] not in OTHER_ROOMS]
    return {name: Path(str(importlib.util.find_spec(name).origin)) for name in sorted([*names, TABLE])}  # type: ignore[union-attr]


def _below(path: Iterable[str], prefix: str) -> Iterator[str]:
    for found in pkgutil.iter_modules(path, prefix):
        if found.name.split(".")[1] in OTHER_ROOMS:
            continue
        yield found.name
        if found.ispkg:
            yield from _below(importlib.import_module(found.name).__path__, f"{found.name}.")


def all_mutants() -> list[Mutant]:
    """Of all these modules."""
    return [mutant for name, path in modules().items() for mutant in mutants(name, path.read_text())]


def sample(every: Sequence[Mutant], seed: int, count: int) -> list[Mutant]:
    """So many of them, some of every module, the others in proportion to how many it has.

    Within a module those go first whose key and the seed have the lowest hash: the same ones on any machine, and most of them
    the same ones after a change of the code, or in a larger sample.
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
    return sorted(chosen, key=lambda mutant: (mutant.module, mutant.line, mutant.key))


@dataclass
class Kit:
    """The laws on every player, what each reaches, and which have killed most so far."""

    examples: int
    reach: dict[Try, Reached]
    tried: Counter[Try] = field(default_factory=Counter)
    killed: Counter[Try] = field(default_factory=Counter)

    @classmethod
    def of(cls, players: Sequence[str], examples: int, tell: Callable[[str], None]) -> Kit:
        """Found by trying every law without a mutant."""
        found = {}
        for player in players:
            laws = reached(player, examples, map(str, modules().values()))
            tell(f"{player}: {len(laws)} laws hold without a mutant, {sum(each.seconds for each in laws.values()):.0f} s")
            found.update({(player, law): what for law, what in laws.items()})
        return cls(examples, found)

    def for_mutant(self, mutant: Mutant) -> list[Try]:
        """What may notice it, the most likely for the time it takes first."""
        function = _function_of(mutant)
        tries = [one for one, what in self.reach.items() if function == LINE or function in what.functions]
        return sorted(tries, key=lambda one: -(1 + self.killed[one]) / (2 + self.tried[one]) / (0.1 + self.reach[one].seconds))

    def limits(self, tries: Iterable[Try]) -> list[float]:
        """Seconds of a processor for each."""
        return [AT_LEAST + TIMES * self.reach[one].seconds for one in tries]

    def learn(self, tries: Sequence[Try], outcome: Outcome) -> None:
        """Which law was it?"""
        self.tried.update(tries[: outcome.tries])
        if outcome.outcome != "survived" and outcome.tries:
            self.killed[tries[outcome.tries - 1]] += 1


def _function_of(mutant: Mutant) -> tuple[str, int]:
    """Its file and first line, as a code object has them; a default is worked out outside of it."""
    path = modules()[mutant.module]
    node: Any = ast.parse(path.read_text())
    line = 0
    for name in filter(None, mutant.function.split(".")):
        inside = [each for each in ast.walk(node) if isinstance(each, (ast.FunctionDef, ast.ClassDef)) and each.name == name]
        node = next(each for each in inside if each.lineno <= mutant.line <= (each.end_lineno or 0))
        if isinstance(node, ast.FunctionDef):
            line = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    return (str(path), line) if line else LINE


def try_all(chosen: Sequence[Mutant], kit: Kit, jobs: int, took: Callable[[Mutant, Outcome], None]) -> None:
    """Try each, so many at a time; `took` is told as they end. What is under way is ended if this is interrupted."""
    waiting, running = list(reversed(chosen)), selectors.DefaultSelector()
    try:
        while waiting or running.get_map():
            while waiting and len(running.get_map()) < jobs:
                mutant = waiting.pop()
                tries = kit.for_mutant(mutant)
                trial = Running(mutant.module, mutant.source, tries, kit.limits(tries), kit.examples)
                running.register(trial, selectors.EVENT_READ, (mutant, tries))
            for key, _ in running.select(timeout=1.0):
                trial, (mutant, tries) = key.fileobj, key.data  # type: ignore[assignment]
                if trial.hear():
                    running.unregister(trial)
                    outcome = trial.outcome()
                    kit.learn(tries, outcome)
                    took(mutant, outcome)
            for key in list(running.get_map().values()):
                key.fileobj.stop_if_late()  # type: ignore[union-attr]
    finally:
        for key in list(running.get_map().values()):
            key.fileobj.stop()  # type: ignore[union-attr]
            key.fileobj.outcome()  # type: ignore[union-attr]


class Results:
    """What has come out so far: a file with a line for each mutant, after one that says of what."""

    def __init__(self, path: Path, head: Mapping[str, Any]) -> None:
        self.path = path
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
            path.write_text(json.dumps(dict(head)) + "\n")

    def add(self, mutant: Mutant, outcome: Outcome) -> None:
        """Keep it at once."""
        self.outcomes[mutant.key] = outcome
        with self.path.open("a") as file:
            file.write(json.dumps({"key": mutant.key, **asdict(outcome)}) + "\n")


def read(path: Path) -> tuple[dict[str, Any], dict[str, Outcome]]:
    """The head of a file of results, and the outcomes by the keys of their mutants; a last line cut short is left out."""
    head, *lines = path.read_text().splitlines(keepends=True)
    found = [json.loads(line) for line in lines if line.endswith("\n")]
    return json.loads(head), {each.pop("key"): Outcome(**each) for each in found}


def digest() -> str:
    """Of the code that is mutated, and of the kit."""
    here = Path(__file__).parents[1]
    paths = sorted([*modules().values(), *here.glob("*.py"), *(here / "laws").glob("*.py"), here / "mutation" / "players.py"])
    content = hashlib.sha256()
    for path in paths:
        content.update(path.name.encode() + b"\0" + path.read_bytes())
    return content.hexdigest()[:16]


@dataclass(frozen=True)
class Sample:
    """Which mutants: so many by a seed; or, `only`, those that survived by a file of results, perhaps of older code."""

    seed: int
    count: int
    only: Path | None = None

    def of(self, every: Sequence[Mutant], tell: Callable[[str], None]) -> list[Mutant]:
        """Drawn from all there are."""
        if self.only is None:
            return sample(every, self.seed, self.count)
        survived = {key for key, outcome in read(self.only)[1].items() if outcome.outcome == "survived"}
        chosen = [mutant for mutant in every if mutant.key in survived]
        tell(f"{len(survived)} survived by {self.only}; {len(survived) - len(chosen)} of them are no longer in the code")
        return chosen


@dataclass(frozen=True)
class Run:
    """What came of a sample."""

    sample: Sample
    examples: int
    mutants: list[Mutant]
    total: int
    outcomes: dict[str, Outcome]


def run(drawn: Sample, jobs: int, examples: int, results: Path, tell: Callable[[str], None]) -> Run:
    """Try every mutant of a sample; go on where `results` ends.

    Args:
        drawn: which.
        jobs: how many are tried at a time.
        examples: cases for each law.
        results: the file for what comes out; if it is there already, what is in it is not tried again.
        tell: is told what happens, a line each.

    Raises:
        ConfigError: `results` is of another sample, or of other code; a law does not hold, though there is no mutant.
    """
    every, players = all_mutants(), tuple(installed())
    chosen = drawn.of(every, tell)
    only = drawn.only and str(drawn.only)
    kept = Results(results, {**asdict(drawn), "only": only, "examples": examples, "players": list(players), "code": digest()})
    left = [mutant for mutant in chosen if mutant.key not in kept.outcomes]
    tell(f"{len(chosen)} of {len(every)} mutants, {len(chosen) - len(left)} of them tried before")
    if left:
        if "torch" in players:
            importlib.import_module("torch")  # once, and not by every process
        kit = Kit.of(players, examples, tell)

        def took(mutant: Mutant, outcome: Outcome) -> None:
            kept.add(mutant, outcome)
            where = f" by {outcome.law} on {outcome.player}" if outcome.outcome != "survived" else ""
            tell(f"{len(kept.outcomes)}/{len(chosen)} {outcome.seconds:6.1f} s {outcome.outcome}{where}: {mutant.key}")

        try_all(left, kit, jobs, took)
    return Run(drawn, examples, chosen, len(every), kept.outcomes)
