"""Intents: a memory on frozen sentence embeddings, beside what scikit-learn has."""
