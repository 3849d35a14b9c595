"""Online classification: streams of classes, and classifiers that learn from them step by step."""
