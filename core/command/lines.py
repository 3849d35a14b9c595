"""Text for one line of a terminal."""


def as_line(text: str) -> str:
    """The text in one line: separators and control characters become spaces."""
    return " ".join("".join(character if character.isprintable() else " " for character in text).split())
