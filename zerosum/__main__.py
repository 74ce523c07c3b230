"""``python -m zerosum COMMAND``: all commands."""

from zerosum.runs.command import main

if __name__ == "__main__":
    raise SystemExit(main())
