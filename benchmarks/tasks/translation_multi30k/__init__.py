"""English to German (paper, section 4.3), with a deep recurrent sequence-to-sequence network with attention.

`recipe` has the sizes of the network and its batches, `torch_learner` and `jax_learner` the network, `run` the measurements;
`data.corpus` has the text and its subwords.

The memory is at the decoder. The query is a linear map of the attention's mean of source embeddings and of the last token: it
tells which word is due, and nothing of the sentence, which would let training find each pair by itself. The value is the target
token, and what is retrieved is embedded, gated by the state and the similarity of the nearest neighbor, and added to the state.
Only the tokens of rare words are written, and have the memory's loss: it is they that the weights do not learn (our choice; the
mask does it). It is asked at every token, in training as in translation. The gradient of the query stops at its map: else the
attention serves the few rare words before the many others (our choice; measured).
"""
