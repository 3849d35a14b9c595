"""How the nearest slots are found: objects, of which a backend has one.

`contract.Searcher` says what each answers. `portable` scans in shapes that any compiler takes; `shortlist` rules most slots
out by a coarse scan and proves its answer, where shapes may depend on content; `live` asks an approximate index that follows
the memory; `shards` asks many holders of parts. Searchers of one framework (kernels on a GPU, keys in bf16) are in its
adapter.
"""
