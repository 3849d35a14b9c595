"""The network that translates, with a memory at its decoder, in both frameworks."""
