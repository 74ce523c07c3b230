"""``python -m zerosum.report``: one page about a run."""

from zerosum.runs.report import main

if __name__ == "__main__":
    raise SystemExit(main())
