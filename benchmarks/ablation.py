"""Tables of methods and ablations: rows of settings x seeds x data sets, one schedule, one start, last epoch.

    python benchmarks/ablation.py -o runs/ablation [--rows base,psg,cae] [--seeds 3] [--only camvid] [--start random]

Runs one after another, seed by seed; a run that has its scores is not run again, one that was broken off is resumed,
and several processes may share the folder. The data folder holds ``data/camvid``, ``data/msrc21`` and ``weights/``.
Training reads the images alone; scores are counted on all labelled images of the set, after the last epoch. The table
is printed, and written to ``table.md`` in the folder.
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
from contextseg.run_folder import RunFolder
from contextseg.settings import load_settings, make_settings, override

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("CONTEXTSEG_DATA", ROOT.parent / "shared"))
SETS = {"camvid": 11, "msrc21": 21}
STARTS: dict[str, dict[str, Any]] = {
    "imagenet": {
        "name": "mobilenetv2_100",
        "weights": "weights/mobilenetv2_100_imagenet_supervised.safetensors",
        "start": "ImageNet, supervised",
        "mean": [0.5, 0.5, 0.5],  # as the batch-norm statistics tell too, if left out; stated here to save the time
        "std": [0.5, 0.5, 0.5],
        "options": {"pad_type": "same"},
    },
    "densenet": {
        "name": "densenet169",
        "weights": "weights/densenet169_imagenet_supervised.safetensors",
        "start": "ImageNet, supervised",
    },
    "random": {"name": "mobilenetv2_100"},
}
NO_PSG = ["context.guidance.strength=0"]
CAE_PARTS = ("global_context", "geometry", "appearance", "bilateral")


def cae_without(*parts: str) -> list[str]:
    return [f"context.embedding.{part}=false" for part in parts]


def cae_only(part: str) -> list[str]:
    return cae_without(*(other for other in CAE_PARTS if other != part))


CONTEXT = ["method=context"]
ROWS: dict[str, tuple[str | None, list[str]]] = {
    # what is the base worth
    "context": (None, CONTEXT),
    "picie-as-described": ("picie-as-described", []),
    "picie-as-released": ("picie-as-released", []),
    "picie-tuned": (None, ["method=picie"]),
    "kmeans": (None, ["method=kmeans"]),
    "lab": (None, ["method=lab"]),
    # PSG x CAE
    "base": (None, [*CONTEXT, *NO_PSG, *cae_without(*CAE_PARTS)]),
    "psg": (None, [*CONTEXT, *cae_without(*CAE_PARTS)]),
    "cae": (None, [*CONTEXT, *NO_PSG]),
    # controls
    "psg-shuffled": (None, [*CONTEXT, *cae_without(*CAE_PARTS), "context.guidance.shuffled=true"]),
    "geometry-shuffled": (None, [*CONTEXT, *NO_PSG, *cae_only("geometry"), "context.embedding.shuffled=true"]),
    # levels of the pyramid, its teacher, its weight
    "psg-1": (None, [*CONTEXT, *cae_without(*CAE_PARTS), "context.guidance.scales=[1]"]),
    "psg-student": (None, [*CONTEXT, *cae_without(*CAE_PARTS), "context.guidance.teacher=student"]),
    "psg-weak": (None, [*CONTEXT, *cae_without(*CAE_PARTS), "context.guidance.strength=1"]),
    # parts of the embedding
    **{f"cae-{part}": (None, [*CONTEXT, *NO_PSG, *cae_only(part)]) for part in CAE_PARTS},
    # what is ours besides
    "context-no-merging": (None, [*CONTEXT, "context.clusters_per_class=1"]),
}
console = Console()


def main(
    out: Annotated[Path, typer.Option("-o", "--out")] = Path("runs/ablation"),
    rows: Annotated[str, typer.Option(help="Names from ROWS, with commas; all by default.")] = ",".join(ROWS),
    seeds: int = 3,
    only: Annotated[str | None, typer.Option(help="One of the sets.")] = None,
    start: Annotated[str, typer.Option(help=f"One of {', '.join(STARTS)}.")] = "imagenet",
    assignments: Annotated[list[str] | None, typer.Option("--set", help="Settings of all rows.")] = None,
    data: Path = DATA,
) -> None:
    names, out = rows.split(","), out / start
    for seed in range(seeds):
        for row in names:
            for name in [only] if only else SETS:
                run(out, data, row, name, seed, start, assignments or [])
    text = table(out, names, seeds)
    (out / "table.md").write_text(text + "\n")
    console.print(text)


def run(out: Path, data: Path, row: str, name: str, seed: int, start: str, assignments: list[str]) -> None:
    folder = run_folder(out, row, name, seed)
    if (folder / "scores.json").exists():
        return
    console.print(f"{name}, {row}, seed {seed}")
    recipe, own = ROWS[row]
    values = load_settings(ROOT / "recipes" / f"{recipe}.yaml") if recipe else {}
    backbone = dict(STARTS[start])
    if "weights" in backbone:
        backbone["weights"] = str(data / backbone["weights"])
    values |= {
        "n_classes": SETS[name],
        "seed": seed,
        "backbone": backbone,
    }
    if not (folder / "weights.safetensors").exists():
        settings, images = make_settings(override(values, [*own, *assignments])), data / "data" / name / "images"
        verbs.fit(images, folder, settings, resume=folder.exists(), console=console)
    scores = verbs.evaluate(folder, data / "data" / name)
    console.print(f"{name}, {row}, seed {seed}: accuracy {scores.accuracy:.4f}, mIoU {scores.miou:.4f}")


def table(out: Path, rows: list[str], seeds: int) -> str:
    lines = [
        "| row | " + " | ".join(f"{name}, accuracy | {name}, mIoU | cluster use" for name in SETS) + " | images/s |",
        "|---" * (3 * len(SETS) + 2) + "|",
    ]
    for row in rows:
        cells, rates = [row], []
        for name in SETS:
            found = list(results(out, row, name, seeds))
            cells += [mean_std([100 * scores[key] for scores, _ in found]) for key in ("accuracy", "miou")]
            epochs = [[line for line in metrics if "images_per_s" in line] for _, metrics in found]
            use = [lines_[-1]["cluster_use"] for lines_ in epochs if lines_]
            cells.append(f"{min(use):.2f}" if use else "-")
            rates += [line["images_per_s"] for lines_ in epochs for line in lines_]
        lines.append("| " + " | ".join([*cells, f"{statistics.median(rates):.1f}" if rates else "-"]) + " |")
    return "\n".join(lines)


def results(out: Path, row: str, name: str, seeds: int) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    for seed in range(seeds):
        folder = run_folder(out, row, name, seed)
        if (folder / "scores.json").exists():
            yield json.loads((folder / "scores.json").read_text()), RunFolder(folder).metrics()


def mean_std(values: list[float]) -> str:
    if not values:
        return "-"
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{spread} (n={len(values)})"


def run_folder(out: Path, row: str, name: str, seed: int) -> Path:
    return out / name / row / f"seed-{seed}"


if __name__ == "__main__":
    typer.run(main)
