"""A network that goes on learning through its memory while it translates (paper, section 4.3; English to German).

The network is trained once, with its memory, and is frozen then. A text of another kind passes by sentence by sentence: each is
translated first, and read with its translation after that. No gradient step is taken.

`material` has the text, `engine` the order of things. `systems` has the memory: of tokens (key: the network's trained query,
value: the token; `notes` beside each slot), and of words (`lexicon`; key: a source word and the word that stood for it, value:
the latter). `evidence` is what is known at a token, `gate` what makes probabilities of it, learned from text held out
(`observe`, `settle`). `peers` are what the field does. `trial` measures part by part: `words`, `figures` and `examples` of a
stream, `slots`, `halves`, `costs`. `report` shows.
"""
