"""The executable specification, and the laws that hold every backend to it."""
