"""The synthetic task of the paper's section 4.2, on an Extended Neural GPU: a fixed random function to be learned by heart.

`recipe` is the task and the sizes of the network, `torch_learner` and `jax_learner` the network, `run` what is measured.

What the paper leaves open, or what is ours: the answer to a symbol is due one place later in its sequence, so that the
convolutions have something to carry; sequences are of one length; symbols are drawn by a Zipf law whose exponent makes the
rarest one expected once in the whole of training; a thousand symbols are never shown in training; the recurrent network takes
4 steps before it asks the memory and 2 after, which read what came back from a tape, as the decoder of the Extended Neural GPU
(Kaiser and Bengio, NIPS 2016) does; and all places are answered at once, where that decoder answers one after the other.
"""
