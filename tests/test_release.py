"""What a release says of itself agrees, and what it needs is bounded from below."""

import re
import tomllib
from pathlib import Path

import yaml

import contextseg

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_citation_has_the_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == contextseg.__version__
    assert citation["title"] == PROJECT["name"]


def test_every_dependency_has_a_lower_bound() -> None:
    groups = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    for requirement in (one for group in groups for one in group if not one.startswith("contextseg[")):
        assert re.fullmatch(r"[\w.-]+(\[[\w,-]+\])?>=\d[\d.]*( *;.*)?", requirement), requirement
