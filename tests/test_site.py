"""The site of the documentation builds without a warning, and describes every public name."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import yaml

import lrf_core

ROOT = Path(__file__).parents[1]


def test_the_site_builds_strictly(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    page = (tmp_path / "library" / "index.html").read_text()
    assert not [name for name in lrf_core.__all__ if f'id="lrf_core.{name}"' not in page]


def test_every_page_is_in_the_navigation() -> None:
    # MkDocs has tags of its own for Python objects, which a safe loader rejects; here are none.
    navigation = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    named = set(re.findall(r"[\w-]+\.md", str(navigation)))
    assert named == {page.name for page in (ROOT / "docs").glob("*.md")}
