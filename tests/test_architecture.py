"""The arrows between the parts of the house, and what must stay light."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src" / "contextseg"

# A part may import from the layers above its own in this list; the parts of one layer may not import one another.
LAYERS: list[set[str]] = [
    {"conventions", "errors", "extras", "files", "memory", "randomness", "__init__"},
    {"settings", "colours", "collectives", "precision", "progress"},
    {"run_folder", "classes"},
    {"naming"},
    {"data", "views", "models", "clustering", "evaluation", "export"},
    {"cores", "guidance", "report", "tiling", "pixel_clusters"},
    {"methods"},
    {"training", "predictor", "refinement"},
    {"probes", "fresh_clusters"},
    {"onnx_export", "windows"},
    {"exporting", "reporting", "splitting"},
    {"verbs"},
    {"estimator", "demo", "comparison", "review"},
    {"cli"},
    {"__main__"},
]
ALLOWED_WITHIN = {"conventions", "errors", "extras", "files", "memory", "randomness", "__init__"}
TORCHLESS = {
    "run_folder",
    "settings",
    "colours",
    "progress",
    "classes",
    "naming",
    "data",
    "evaluation",
    "export",
    "review",
    "report",
}
FILES = sorted(SRC.rglob("*.py"))


def part(path: Path) -> str:
    relative = path.relative_to(SRC)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def layer(name: str) -> int:
    return next(number for number, names in enumerate(LAYERS) if name in names)


def imported_parts(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    ours = [name.split(".") for name in names if name.split(".")[0] == "contextseg"]
    known = set().union(*LAYERS)
    return {name[1] if len(name) > 1 and name[1] in known else "__init__" for name in ours}


def test_every_part_has_a_layer() -> None:
    assert {part(path) for path in FILES} == set().union(*LAYERS)


def test_the_page_on_the_architecture_lists_the_same_layers() -> None:
    page = (SRC.parents[1] / "docs" / "architecture.md").read_text()
    lines = "; then ".join(re.findall(r"^\d+\. (.*)$", page, re.M)).split("; then ")
    listed = [set(re.findall(r"`(\w+)`", line)) for line in lines]
    assert listed == [names - {"__init__"} for names in LAYERS[:-1]]  # all but `python -m contextseg`
    steps = page[: page.index("## One command")]
    assert set(re.findall(r"`(\w+)`", steps)) == set().union(*listed)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SRC)))
def test_imports_point_one_way(path: Path) -> None:
    own = part(path)
    if own == "__init__":
        return  # the public names, loaded when they are first used
    for other in imported_parts(path) - {own}:
        lower = layer(other) < layer(own)
        assert lower or (other in ALLOWED_WITHIN and own in ALLOWED_WITHIN), f"{own} must not import {other}"


def test_parts_that_work_from_files_import_no_torch() -> None:
    for path in FILES:
        if part(path) in TORCHLESS:
            assert not re.search(r"^\s*(import|from) (torch|kornia|timm|lightning)", path.read_text(), re.M), path


def test_labels_are_opened_by_evaluate_probes_compare_the_check_and_the_demo_alone() -> None:
    opens = r"open_labelled|read_label|LabelledImages|read_classes|read_values|check_copy"
    readers = {str(path.relative_to(SRC)) for path in FILES if re.search(opens, path.read_text())}
    within_data = {f"data/{name}.py" for name in ("label_files", "labelled", "check", "folder", "cocostuff")}
    within_compare = {"comparison/compare.py", "comparison/rows.py"}
    assert readers == within_data | within_compare | {"verbs.py", "probes.py", "cli.py", "demo.py"}


def test_training_reaches_images_alone() -> None:
    """What training imports of the data, and what that imports in turn, knows no label file."""
    reached, waiting = set(), {path for path in FILES if part(path) in {"training", "methods", "models", "predictor"}}
    while waiting:
        names = {name for path in waiting for name in re.findall(r"contextseg\.data\.(\w+) import", path.read_text())}
        waiting = {SRC / "data" / f"{name}.py" for name in names - reached}
        reached |= names
    assert reached == {"image_files", "images", "cache", "tars", "threads"}


@pytest.mark.parametrize(
    "statement",
    [
        "import contextseg",
        "import contextseg.cli",
        "import contextseg.run_folder",
        "import contextseg.data.check, contextseg.data.listing",
        "from contextseg import hide, merge, name",
        "import contextseg.export.formats, contextseg.export.geotiff",
        "import contextseg.review.serve",
    ],
)
def test_no_torch_is_imported(statement: str) -> None:
    code = f"import sys; {statement}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_no_file_is_a_catch_all() -> None:
    assert not {"utils", "helpers", "common", "misc"} & {path.stem for path in FILES}
