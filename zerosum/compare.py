"""``python -m zerosum.compare``: finished runs side by side."""

from zerosum.runs.compare import main

if __name__ == "__main__":
    raise SystemExit(main())
