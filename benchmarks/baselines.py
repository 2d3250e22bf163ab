"""The floors and PiCIE on CamVid and MSRC-21: one table, every run from the same settings, start and schedule.

    python benchmarks/baselines.py -o runs/baselines [--seeds 3] [--data ../shared]

Runs one after another; a run that has its scores is not run again, and one that was broken off is resumed. The data
folder holds ``data/camvid``, ``data/msrc21`` and ``weights/``. Training reads the images alone; scores are counted on
all labelled images of the set, after the last epoch.
"""

import json
import os
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from contextseg import verbs
from contextseg.settings import load_settings, make_settings, override

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("CONTEXTSEG_DATA", ROOT.parent / "shared"))
SETS = {"camvid": 11, "msrc21": 21}
WEIGHTS = "weights/mobilenetv2_100_imagenet_supervised.safetensors"
ROWS: dict[str, tuple[str | None, list[str]]] = {
    "default (PiCIE, temperature 0.1)": (None, []),
    "PiCIE as described": ("picie-as-described", []),
    "PiCIE as released": ("picie-as-released", []),
    "k-means on the start": (None, ["method=kmeans"]),
    "Lab + position": (None, ["method=lab"]),
}
console = Console()


def main(
    out: Annotated[Path, typer.Option("-o", "--out")] = Path("runs/baselines"),
    seeds: int = 3,
    only: Annotated[str | None, typer.Option(help="One of the sets.")] = None,
    data: Path = DATA,
) -> None:
    for seed in range(seeds):
        for row in ROWS:
            for name in [only] if only else SETS:
                run(out, data, row, name, seed)
    console.print(table(out, seeds))


def run(out: Path, data: Path, row: str, name: str, seed: int) -> None:
    folder = run_folder(out, row, name, seed)
    if (folder / "scores.json").exists():
        return
    console.print(f"{name}, {row}, seed {seed}")
    recipe, assignments = ROWS[row]
    values = load_settings(ROOT / "recipes" / f"{recipe}.yaml") if recipe else {}
    values |= {
        "n_classes": SETS[name],
        "seed": seed,
        "backbone": {
            "name": "mobilenetv2_100",
            "weights": str(data / WEIGHTS),
            "start": "ImageNet, supervised",
        },
    }
    if not (folder / "weights.safetensors").exists():
        settings, images = make_settings(override(values, assignments)), data / "data" / name / "images"
        verbs.fit(images, folder, settings, resume=folder.exists(), console=console)
    scores = verbs.evaluate(folder, data / "data" / name)
    console.print(f"accuracy {scores.accuracy:.4f}, mIoU {scores.miou:.4f}")


def table(out: Path, seeds: int) -> str:
    lines = [
        "| method | "
        + " | ".join(f"{name}, accuracy | {name}, mIoU" for name in SETS)
        + " | images/s | peak memory, MiB |",
        "|---" * (2 * len(SETS) + 3) + "|",
    ]
    for row in ROWS:
        cells = [row]
        for name in SETS:
            found = list(scores(out, row, name, seeds))
            cells += [mean_std([100 * score[key] for score in found]) for key in ("accuracy", "miou")]
        lines.append("| " + " | ".join(cells + speed_and_memory(out, row, seeds)) + " |")
    return "\n".join(lines)


def scores(out: Path, row: str, name: str, seeds: int) -> Iterator[dict[str, Any]]:
    for seed in range(seeds):
        path = run_folder(out, row, name, seed) / "scores.json"
        if path.exists():
            yield json.loads(path.read_text())


def speed_and_memory(out: Path, row: str, seeds: int) -> list[str]:
    folders = [run_folder(out, row, name, seed) for name in SETS for seed in range(seeds)]
    rates = [
        line["images_per_s"]
        for folder in folders
        if (folder / "metrics.jsonl").exists()
        for line in map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
        if "images_per_s" in line
    ]
    memory = [
        json.loads((folder / "meta.json").read_text())["peak_memory_mib"] for folder in folders if folder.exists()
    ]
    return [f"{statistics.median(rates):.1f}" if rates else "-", f"{max(memory):.0f}" if memory else "-"]


def mean_std(values: list[float]) -> str:
    if not values:
        return "-"
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{spread} (n={len(values)})"


def run_folder(out: Path, row: str, name: str, seed: int) -> Path:
    return out / name / row.replace(" ", "-").replace(",", "").replace("(", "").replace(")", "") / f"seed-{seed}"


if __name__ == "__main__":
    typer.run(main)
