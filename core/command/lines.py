"""A text in one line of a terminal."""


def as_line(text: str) -> str:
    """The text in one line, whatever separators and control characters are in it."""
    return " ".join("".join(character if character.isprintable() else " " for character in text).split())
