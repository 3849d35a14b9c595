"""The list of all laws, how one is tried on a backend, and the kinds of cases that laws ask for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.database import DirectoryBasedExampleDatabase

from raremem.backend import Backend
from raremem.reference.laws.explain import explain
from raremem.reference.laws.law import Check, Law
from raremem.reference.lives import Life
from raremem.reference.strategies import FEW_SIZES, MANY_SIZES, Case, Size, cases

FOUND = ".hypothesis/raremem"
"""Where fuzzing keeps the cases that it has found."""

LAWS: dict[str, Law] = {}
CASES = 0xF45BF263EBA8438F54E7787D3FDDC18D7739CBC81EBE01242A4BF2BCB729CDE5902FAB640BDEF4B87E52F920555C68C8
"""The seed of all cases. By default Hypothesis makes one of the text of the function that it calls, and would draw other cases,
which may miss a fault, whenever a line of it is changed."""
USUAL, USUAL_TRACED = 30, 20
"""Cases for each law, where nothing else is said; the second on a backend that `traces`, where one takes ten times as long."""
OF_OTHER_PROGRAMS = frozenset({
    "a_batch_is_kept_whole",
    "a_copy_that_was_written_to_is_looked_up_again",
    "a_hit_moves_no_key",
    "a_lookup_does_not_outlive_what_it_found",
    "a_set_is_stored_in_batches",
    "copied_lookup_is_of_its_memory",
    "gradient_agrees",
    "gradient_belongs_to_its_query",
    "gradient_is_the_slope",
    "gradient_of_what_is_retrieved_agrees",
    "gradient_of_what_is_retrieved_is_the_slope",
    "half_precision_rows_are_cast",
    "kept_rows_agree",
    "kept_rows_agree_where_those_hit_least_go",
    "likelihood_agrees",
    "likelihood_agrees_on_any_rows",
    "likelihood_changes_the_loss_only",
    "likelihood_gradient_agrees",
    "many_memories_in_one_call",
    "no_gradient_reaches_the_keys",
    "no_rows_are_a_batch",
    "those_hit_least_go_first",
    "what_is_kept_beside_slots_follows",
    "what_was_given_is_let_go",
})  # fmt: skip
"""Laws whose configs, batch sizes, dtypes or gradients need programs that few others use. Where sizes are few, each is tried in
the first of them; in all when fuzzing, or for more cases than usual."""


def law(
    rule: str, strategy: Callable[[tuple[Size, ...]], st.SearchStrategy[Any]] = cases, **traits: Any
) -> Callable[[Check], Check]:
    """Enter a function among the laws, under its own name."""

    def enter(check: Check) -> Check:
        LAWS[check.__name__] = Law(check.__name__, rule, strategy, check, **traits)
        return check

    return enter


def run(
    law: Law,
    backend: Backend,
    examples: int | None = None,
    shrink: bool = True,
    called: str | None = None,
    fuzz: bool = False,
    one_size: bool = False,
) -> int:
    """Try a law on a backend with this many cases (a tenth if it is costly), the same ones every time.

    Args:
        law: which.
        backend: on what.
        examples: how many cases; by default `USUAL`, or `USUAL_TRACED` on a backend that traces, unless fuzzing.
        shrink: look for the smallest case, and explain it.
        called: what the user calls the backend.
        fuzz: other cases every time, and first those that have failed before, as Hypothesis's database has them.
        one_size: on a backend that traces, try it in the first of few sizes, unless it is a law of others.

    Returns:
        How many cases were tried.

    Raises:
        AssertionError: the law does not hold. It says so for the smallest case that was found; see `explain`.
    """
    if examples is None:
        examples = USUAL_TRACED if traces(backend) and not fuzz else USUAL
    sizes = _sizes(law, backend, one_size or not (fuzz or examples > USUAL or law.name not in OF_OTHER_PROGRAMS))
    tried = 0
    broken: list[tuple[Case | tuple[Life, ...], Exception]] = []

    @_settings(law, examples, shrink, fuzz)
    @given(law.strategy(sizes))
    def check(case: Case | tuple[Life, ...]) -> None:
        nonlocal tried
        tried += 1
        try:
            law.check(backend, case)
        except Exception as error:
            broken[:] = [(case, error)]
            raise

    try:
        (check if fuzz else seed(CASES)(check))()
    except Exception:
        if not broken:
            raise
        case, error = broken[0]
        raise AssertionError(explain(law, backend, case, error, called or backend.name) if shrink else law.name) from error
    return tried


def _settings(law: Law, examples: int, shrink: bool, fuzz: bool) -> settings:
    """Those of Hypothesis for `run`."""
    phases = [Phase.generate] + [Phase.shrink] * (shrink and not law.costly) + [Phase.reuse] * fuzz
    return settings(
        max_examples=max(1, examples // 10) if law.costly else examples,
        phases=phases,
        deadline=None,
        database=DirectoryBasedExampleDatabase(f"{FOUND}/{law.name}") if fuzz else None,
        derandomize=not fuzz,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )


def traces(backend: Backend) -> bool:
    """Whether it compiles, or is JAX, which compiles each operation for each shape."""
    return backend.compiled or backend.name == "jax"


def _sizes(law: Law, backend: Backend, one: bool) -> tuple[Size, ...]:
    """A compiler makes programs for each size: few of them, or one, where there is a compiler."""
    if not traces(backend):
        return MANY_SIZES
    return FEW_SIZES[:1] if one and law.strategy not in (crowded, one_slot, many_neighbors) else FEW_SIZES


def general(sizes: tuple[Size, ...]) -> st.SearchStrategy[Case]:
    """Arbitrary f32 rows."""
    return cases(sizes, exact=False)


def full(sizes: tuple[Size, ...]) -> st.SearchStrategy[Case]:
    """Memories with no empty slot."""
    return cases(sizes, full=True, masked=False)


def empty(sizes: tuple[Size, ...]) -> st.SearchStrategy[Case]:
    """Memories that have seen nothing."""
    return cases(sizes, full=False, masked=False)


def crowded(sizes: tuple[Size, ...]) -> st.SearchStrategy[Case]:
    """More rows than slots."""
    return cases(tuple(size for size in sizes if size.batch > size.config.slots), masked=False)


def one_slot(sizes: tuple[Size, ...]) -> st.SearchStrategy[Case]:
    """A memory of a single slot."""
    return cases(tuple(size for size in sizes if size.config.slots == 1))


def many_neighbors(sizes: tuple[Size, ...]) -> st.SearchStrategy[Case]:
    """More neighbors asked for than there are slots."""
    return cases(tuple(size for size in sizes if size.config.neighbors > size.config.slots))
