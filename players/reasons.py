"""What went wrong in somebody else's code, in a line of ours."""


def in_a_line(error: Exception) -> str:
    """Its type and the first line of its message."""
    return f"{type(error).__name__}: {first_line(error)}"


def first_line(error: Exception) -> str:
    """Of an error's message, or its type where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
