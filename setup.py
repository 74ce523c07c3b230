"""The long description is README.md. The project has no address yet that its links could lead to: pages that it names
are in the source distribution."""

import re
from pathlib import Path

from setuptools import setup

LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?://|#)([^)]*)\)")  # to a file beside it


def without_files(page: str) -> str:
    """Links to files by their names, and no pictures."""
    return LINK.sub(lambda link: "" if link[1] else link[2], page)


README = (Path(__file__).parent / "README.md").read_text(encoding="utf-8")
setup(long_description=without_files(README), long_description_content_type="text/markdown")
