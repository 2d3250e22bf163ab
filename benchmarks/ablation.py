"""Tables of methods and ablations: rows of settings x seeds x data sets, one schedule, one start, last epoch.

    python benchmarks/ablation.py -o runs/ablation [--rows base,psg,cae] [--seeds 3] [--only camvid] [--start random]

Runs one after another, seed by seed; a run that has its scores is not run again, one that was broken off is resumed,
and several processes may share the folder. The data folder holds ``data/camvid``, ``data/msrc21`` and ``weights/``.
Training reads the images alone; scores are counted on all labelled images of the set, after the last epoch. A table of
each set is printed, and written to its folder as ``table.md`` and ``table.csv``.
"""

import os
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from contextseg.comparison.compare import write_tables
from contextseg.comparison.rows import collect, run_row
from contextseg.comparison.tables import screen_table
from contextseg.data.labelled import open_labelled
from contextseg.settings import load_settings, override

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
    # contextseg pretrain DATA/data/SET/images -o runs/selfsup-SET.safetensors --backbone mobilenetv2_100
    "selfsup": {"name": "mobilenetv2_100", "weights": str(ROOT / "runs" / "selfsup-{data_set}.safetensors")},
}
NO_PSG = ["context.guidance.strength=0"]
CAE_PARTS = ("global_context", "geometry", "appearance", "own_centers", "bilateral")


def cae_without(*parts: str) -> list[str]:
    return [f"context.embedding.{part}=false" for part in parts]


CONTEXT = ["method=context"]
ROWS: dict[str, tuple[str | None, list[str]]] = {
    # what is the base worth
    "context": (None, CONTEXT),
    "picie-as-described": ("picie-as-described", []),
    "picie-as-released": ("picie-as-released", []),
    "picie-tuned": (None, ["method=picie"]),
    "kmeans": (None, ["method=kmeans"]),
    "lab": (None, ["method=lab"]),
    # the peers
    "picie-h": (None, ["method=picie", "picie.overclusters=100"]),
    **{method: (None, [f"method={method}"]) for method in ("mdc", "iic", "densesiam", "stego")},
    # PSG x CAE
    "base": (None, [*CONTEXT, *NO_PSG, *cae_without(*CAE_PARTS)]),
    "psg": (None, [*CONTEXT, *cae_without(*CAE_PARTS)]),
    "cae": (None, [*CONTEXT, *NO_PSG]),
    # controls
    "psg-shuffled": (None, [*CONTEXT, *cae_without(*CAE_PARTS), "context.guidance.shuffled=true"]),
    "geometry-shuffled": (None, [*CONTEXT, "context.embedding.shuffled=true"]),
    # levels of the pyramid, its teacher, its weight
    "psg-1": (None, [*CONTEXT, *cae_without(*CAE_PARTS), "context.guidance.scales=[1]"]),
    "psg-student": (None, [*CONTEXT, *cae_without(*CAE_PARTS), "context.guidance.teacher=student"]),
    "psg-strong": (None, [*CONTEXT, *cae_without(*CAE_PARTS), "context.guidance.strength=3"]),
    # parts of the embedding
    **{
        f"context-no-{part}": (None, [*CONTEXT, *cae_without(part)])
        for part in ("projection", "to_the_end", "global_context", "geometry", "appearance", "own_centers")
    },
    "context-bilateral": (None, [*CONTEXT, "context.embedding.bilateral=true"]),
    # what is ours besides
    "base-free": (None, [*CONTEXT, *NO_PSG, *cae_without(*CAE_PARTS), "context.balance=0"]),
    "context-one-draw": (None, [*CONTEXT, "context.n_draws=1"]),
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
    names = rows.split(",")
    sets = {data_set: open_labelled(data / "data" / data_set) for data_set in ([only] if only else SETS)}
    for seed in range(seeds):
        for name in names:
            for data_set, labelled in sets.items():
                values = settings_of(name, data_set, start, assignments or [], data)
                where = {"images": labelled.root / "images", "labelled": labelled, "out": out / start / data_set}
                run_row(name, values, seed, **where, console=console)
    for data_set in sets:
        found = collect(out / start / data_set, names, seeds)
        write_tables(found, out / start / data_set)
        console.print(screen_table(found, title=data_set))


def settings_of(row: str, data_set: str, start: str, assignments: list[str], data: Path) -> dict[str, Any]:
    recipe, own = ROWS[row]
    values = load_settings(ROOT / "recipes" / f"{recipe}.yaml") if recipe else {}
    backbone = dict(STARTS[start])
    if "weights" in backbone:
        backbone["weights"] = str(data / backbone["weights"].format(data_set=data_set))
    return override(values | {"n_classes": SETS[data_set], "backbone": backbone}, [*own, *assignments])


if __name__ == "__main__":
    typer.run(main)
