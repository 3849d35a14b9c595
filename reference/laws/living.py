"""Laws over time: sequences of calls from `init` on, compared with the oracle."""

from __future__ import annotations

from hypothesis import strategies as st

from raremem.backend import Backend
from raremem.reference.companion import Companion
from raremem.reference.laws.registry import law
from raremem.reference.lives import FEW_WORLDS, GENERAL, MANY_WORLDS, Life, World, long_lives
from raremem.reference.lives import lives as lives_in
from raremem.reference.strategies import MANY_SIZES, Size


def worlds(sizes: tuple[Size, ...]) -> tuple[World, ...]:
    """The worlds for these sizes: few where sizes are few."""
    return MANY_WORLDS if sizes is MANY_SIZES else FEW_WORLDS


def general(sizes: tuple[Size, ...]) -> st.SearchStrategy[tuple[Life, ...]]:
    """Lives of arbitrary rows; where worlds are few in one of those, for which there are programs."""
    return lives_in((GENERAL,) if sizes is MANY_SIZES else FEW_WORLDS, exact=False)


def living(sizes: tuple[Size, ...]) -> st.SearchStrategy[tuple[Life, ...]]:
    """Exact lives."""
    return lives_in(worlds(sizes))


@law("1 to 8, 11, 12", living, late=True)
def a_memory_lives(backend: Backend, lives: tuple[Life, ...]) -> None:
    """From `init` on every call answers as the oracle's. What was returned does not change later, and input never."""
    for life in lives:
        Companion(backend, life).live()


@law("11, 12, 14", lambda sizes: lives_in(worlds(sizes), forgets=True), costly=True)
def a_memory_lives_and_forgets(backend: Backend, lives: tuple[Life, ...]) -> None:
    """The same with slots, values and what is old forgotten on the way, and lookups from before."""
    for life in lives:
        Companion(backend, life).live()


@law("4 to 8, 11", lambda sizes: long_lives(worlds(sizes)), costly=True)
def a_memory_lives_long(backend: Backend, lives: tuple[Life, ...]) -> None:
    """The same over hundreds of updates."""
    for life in lives:
        Companion(backend, life).live()


@law("1 to 8", general)
def a_memory_lives_on_any_rows(backend: Backend, lives: tuple[Life, ...]) -> None:
    """The same on arbitrary rows, each call from the memory as the backend holds it, within the derived tolerance."""
    for life in lives:
        Companion(backend, life).live()
