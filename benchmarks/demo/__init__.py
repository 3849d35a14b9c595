"""The demo: a small network trains with the memory, then meets characters it was never trained on, once each.

`stream` shows the new characters to the memory and to the baselines, `report` draws what came out, and `run` does all of it in
order. The network is that of `raremem.benchmarks.training.embedding`.
"""
