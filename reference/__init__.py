"""The executable specification, and the laws that every backend is tested by."""
