"""Rules 1 to 8 of the specification, over the primitives of any backend: a file a rule or two.

`query` answers (rules 1, 2 and 8) with the `loss` (3); `write` writes (4, 6 and 8) where `eviction` (5) with its `noise` (7)
makes room. Shapes are fixed and there is no branch on content, so that the same lines run eagerly, under `torch.compile` and
under `jax.jit`. Inputs are checked before they come here (`raremem.backend`). How the nearest slots are found is a searcher's
business (`raremem.search`).
"""
