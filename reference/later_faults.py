"""Planted faults of the rules that came after the paper's: see `raremem.reference.faults`, which plants them.

An entry is the name of a fault, the module, the text that stands there once, the wrong text; and perhaps the backend that shows
it, and whether compiled.
"""

_WRITE, _EVICTION = "raremem.rules.write", "raremem.rules.eviction"

LATER: tuple[tuple[str | bool, ...], ...] = (
    # Of rows that are kept (13).
    ("a row that is kept moves the key that it hit", _WRITE, "keys = xp.concatenate([state.keys[xp.where(hit, slot, 0)], queries])",
     "keys = xp.concatenate([queries, queries])"),
    ("a row that hits is not kept", _WRITE, 'accepted if config.write == "keep" else accepted & ~hit', "accepted & ~hit"),
    ("where rows are kept no hit is counted", _WRITE, "twice, hits = xp.concatenate([targets, targets]), xp.concatenate([hits, xp.zeros_like(hits)])",
     "twice, hits = xp.concatenate([targets, targets]), xp.concatenate([state.hits[xp.where(hit, slot, 0)], xp.zeros_like(hits)])"),
    ("a row that is kept takes over the hits", _WRITE, "xp.concatenate([hits, xp.zeros_like(hits)])", "xp.concatenate([hits, hits])"),
    ("where rows are kept a hit makes no slot younger", _WRITE, "xp.concatenate([leads, placed]), xp.concatenate([slot, taken])",
     "xp.concatenate([leads & ~leads, placed]), xp.concatenate([slot, taken])"),
    ("a row that is kept is reported where it hit", _WRITE, "slots=taken if kept else xp.where(batch.hit, batch.slot, taken)",
     "slots=xp.where(batch.hit, batch.slot, taken)"),
    ("a row that hits is reported as kept whether it is or not", _WRITE, "written=placed if kept else batch.hit | placed", "written=batch.hit | placed"),
    ("where rows are kept too few slots are looked at for room", _EVICTION, 'reach = 2 * count if config.write == "keep" else count', "reach = count"),
)  # fmt: skip
