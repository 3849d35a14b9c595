"""The rules of the specification, over the primitives of any backend: a file for each rule or two.

`query` answers (rules 1, 2 and 8) with the `loss` (3). `write` writes (4, 6, 8 and 13); `eviction` (5) with its `noise` (7)
makes room. `forget` empties slots (14), and `scores` sums weights by class (15). `scatter` writes some rows of a batch, and
`plan` has the sizes that an update is cut by.

Shapes are fixed and there is no branch on content, so the same lines run eagerly, under `torch.compile` and under `jax.jit`.
Inputs are checked before they come here (`raremem.backend`). The nearest slots are found by a searcher (`raremem.search`).
"""
