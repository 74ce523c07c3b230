"""``python -m zerosum.export``: a run's result for other runtimes."""

from zerosum.runs.export import main

if __name__ == "__main__":
    raise SystemExit(main())
