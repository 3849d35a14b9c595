"""The network that embeds characters."""
