"""``python -m zerosum.run``: play a recipe's game."""

from zerosum.runs.run import main

if __name__ == "__main__":
    raise SystemExit(main())
