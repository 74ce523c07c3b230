"""``python -m zerosum.sweep``: one recipe with many options."""

from zerosum.runs.sweep import main

if __name__ == "__main__":
    raise SystemExit(main())
