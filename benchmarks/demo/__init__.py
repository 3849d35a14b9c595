"""The demo: a small network trains with the memory, then meets characters it was never trained on, once each.

`recipe` says what is trained, `torch_learner` and `jax_learner` train it, `stream` shows the new characters to the memory and
to the baselines, `report` draws what came out, and `run` does all of it in order.
"""
