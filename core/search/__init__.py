"""Searches for the nearest slots. A backend has one `Searcher`, whose interface is in `contract`.

`portable` scans all keys, in fixed shapes that any compiler takes. `shortlist` rules most slots out by a coarse scan and proves
its answer, where shapes may depend on content. `live` uses an approximate index that follows the memory. `shards` searches a
memory that is spread over many devices. Searchers of one framework (kernels on a GPU, keys in bf16) are in its adapter.
"""
