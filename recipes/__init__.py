"""Parts made into games: each module is a recipe, played by name or path with ``python -m zerosum.run``."""
