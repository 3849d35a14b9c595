"""The report of a run: text for the terminal, and a page of the docs."""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path

import raremem
from raremem.reference.mutation.campaign import HELD_BY_TESTS, Run
from raremem.reference.mutation.explained import EXPLAINED
from raremem.reference.mutation.operators import Mutant
from raremem.reference.mutation.reason import Explained


class Report:
    """A run, with the reason of each survivor."""

    def __init__(self, run: Run, explained: Sequence[Explained] = EXPLAINED) -> None:
        self.run = run
        self.reasons = {each.key: each.reason for each in explained}
        self.told = {each.key for each in explained if each.told}
        self.survivors = [mutant for mutant in run.mutants if run.outcomes[mutant.key].outcome == "survived"]
        self.unexplained = [mutant for mutant in self.survivors if mutant.key not in self.reasons]
        self.left = [mutant for mutant in self.survivors if mutant.key in self.told or mutant.key not in self.reasons]
        survived = {mutant.key for mutant in self.survivors}
        hidden = self.reasons.keys() - self.told
        self.refuted = [mutant for mutant in run.mutants if mutant.key in hidden and mutant.key not in survived]

    @property
    def failed(self) -> bool:
        """Whether a survivor has no reason, or a mutant of which no user could tell was killed."""
        return bool(self.unexplained or self.refuted)

    def score(self) -> str:
        """The score: of the mutants that a user could tell, how many were killed."""
        killed, explained = self._killed(self.run.mutants), len(self.survivors) - len(self.left)
        told = len(self.run.mutants) - explained
        share = f"{100 * killed / told:.1f} %" if told else "none"
        return (
            f"{len(self.run.mutants)} mutants: {killed} killed, {explained} survivors explained, "
            f"{len(self.left)} left; of the {told} that a user could tell {share} are killed"
        )

    def text(self) -> str:
        """The report for the terminal."""
        lines = [self.score()]
        for title, some in (("unexplained survivor", self.unexplained), ("explained, but killed", self.refuted)):
            lines += [line for mutant in some for line in _shown(title, mutant)]
        return "\n".join(lines)

    def page(self) -> str:
        """The page for the docs."""
        run, outcomes = self.run, self.run.outcomes
        minutes = sum(outcomes[mutant.key].seconds for mutant in run.mutants) / 60
        how = Counter(outcomes[mutant.key].outcome for mutant in run.mutants)
        laws = Counter(outcomes[mutant.key].law for mutant in run.mutants if outcomes[mutant.key].outcome == "killed")
        players = Counter(outcomes[mutant.key].player for mutant in run.mutants if outcomes[mutant.key].outcome == "killed")
        return "\n".join([
            "# Mutants of the core, and what the laws make of them\n",
            f"Written by `raremem mutants {self._options()} --report docs/mutants.md` on {date.today().isoformat()}, of "
            f"{_commit()}: {len(run.mutants)} of the {run.total} changes that `raremem.reference.mutation` makes of `core/` "
            "and of the NumPy table (a comparison turned round, a constant one off, a statement left out, arguments swapped), "
            "drawn from every module but those named below. Each is tried on the laws alone, on the backends named below, "
            f"until one is broken: {run.examples} cases of each law, of a costly one a tenth, and only of laws that run a line "
            f"of the statement. The last try of each took {minutes:.0f} minutes of a core in all.\n",
            *self._limits(),
            f"**{self.score()}.** Of those killed {how['hung']} hung and {how['crashed']} ended the process.\n",
            "| module | mutants | killed | survivors explained | left |",
            "| --- | --- | --- | --- | --- |",
            *self._by_module(),
            "\nOf these modules no mutants are made: no law on one backend, in one thread, can tell. Tests hold them.\n",
            "| module | what it does, and what holds it |",
            "| --- | --- |",
            *(f"| {name} | {why} |" for name, why in HELD_BY_TESTS.items()),
            *self._table("What is left", "Some user could tell. No law here does, or it takes more cases.", self.left),
            *self._table(
                "Survivors that no user can tell",
                "Nothing of them is in any answer; how long a call takes, and how much memory, does not count.",
                [mutant for mutant in self.survivors if mutant not in self.left],
            ),
            "\n## Where the others were noticed\n",
            "The laws are tried in the order of what they have killed so far for the time they take, so these are not all that "
            "would have noticed. First by backend, then by law.\n",
            "| backend | killed |",
            "| --- | --- |",
            *(f"| {name or 'when imported'} | {count} |" for name, count in players.most_common()),
            "\n| law | killed |",
            "| --- | --- |",
            *(f"| {name} | {count} |" for name, count in laws.most_common()),
            "",
        ])  # fmt: skip

    def _options(self) -> str:
        run = self.run
        seconds = f" --seconds {run.seconds:g}" if run.seconds < float("inf") else ""
        return f"--seed {run.sample.seed} --count {run.sample.count} --examples {run.examples}{seconds}"

    def _limits(self) -> Iterator[str]:
        """Paragraphs on what was left out to save time, and on what was killed late."""
        run = self.run
        found = [run.outcomes[mutant.key] for mutant in run.mutants]
        if len(run.mutants) < run.drawn:
            yield f"Of the {run.drawn} that were drawn these are the first, in an order of chance; time was up.\n"
        cut = [each for each in found if each.outcome == "survived" and each.left]
        if cut:
            share = 100 * sum(each.tries for each in cut) / sum(each.tries + each.left for each in cut)
            yield (
                f"A mutant that survives is tried on the laws most likely to tell, up to a time. {len(cut)} survivors were not "
                f"tried on all that run their statement, but on {share:.0f} % of these.\n"
            )
        late = sum(each.late and each.outcome != "survived" for each in found)
        if late:
            yield f"{late} of those killed had survived what was tried of the laws as they were before some were added.\n"

    def _killed(self, some: Sequence[Mutant]) -> int:
        return sum(self.run.outcomes[mutant.key].outcome != "survived" for mutant in some)

    def _by_module(self) -> Iterator[str]:
        for module in sorted({mutant.module for mutant in self.run.mutants}):
            some = [mutant for mutant in self.run.mutants if mutant.module == module]
            left = sum(mutant.module == module for mutant in self.left)
            killed = self._killed(some)
            yield f"| {module} | {len(some)} | {killed} | {len(some) - killed - left} | {left} |"

    def _table(self, title: str, says: str, some: Sequence[Mutant]) -> Iterator[str]:
        """A section with a table of survivors, by module and line."""
        yield f"\n## {title}\n\n{says}\n" if some else f"\n## {title}\n\nNone."
        if some:
            yield "| where | change | why |\n| --- | --- | --- |"
            yield from (self._row(mutant) for mutant in sorted(some, key=lambda each: (each.module, each.line, each.key)))

    def _row(self, mutant: Mutant) -> str:
        where = f"{mutant.module}, {mutant.function or 'outside of functions'}"
        change = f"`{mutant.before}` to `{mutant.after}`".replace("|", "\\|")
        return f"| {where} | {change} | {self.reasons.get(mutant.key, '**not explained**')} |"


def _shown(title: str, mutant: Mutant) -> Iterator[str]:
    yield f"\n{title}: {mutant.module}, line {mutant.line}, {mutant.function or 'outside of functions'} ({mutant.operator})"
    yield f"  - {mutant.before}"
    yield f"  + {mutant.after}"


def _commit() -> str:
    """The commit of the checkout as git describes it; without git the version."""
    here = Path(__file__).parent
    try:
        found = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=here, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return f"version {raremem.__version__}"
    return f"commit {found.stdout.strip()}"
