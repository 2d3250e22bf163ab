"""The command line: a function for each command, on the same verbs as in Python.

torch and pydantic are imported inside the commands, so that ``--help`` answers at once.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress
from rich.table import Column, Table
from rich.text import Text

from contextseg.errors import ClassesError, ContextsegError, SettingsError
from contextseg.memory import keep_freed_memory
from contextseg.progress import tell, tell_left_out

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
console = Console(quiet=os.environ.get("RANK", "0") != "0")  # of the processes of torchrun the first speaks
errors = Console(stderr=True)

Run = Annotated[Path, typer.Argument(help="The run folder that `fit` made.")]
Images = Annotated[Path, typer.Argument(help="A folder of images, or one image.")]
Split = Annotated[str | None, typer.Option(help="One split of it, such as val.")]
DataSetName = Annotated[
    str | None,
    typer.Option("--data-set", help="Its name, where a folder may be several: cocostuff3, cityscapes19, potsdam3."),
]
Backbone = Annotated[str | None, typer.Option(help="A timm network, such as resnet18 or mobilenetv2_100.")]
Epochs = Annotated[int | None, typer.Option(help="Passes over the images.")]
Seed = Annotated[int | None, typer.Option(help="Every random draw follows from it.")]
Device = Annotated[str, typer.Option(help="Where the network runs: cpu, cuda, cuda:1.")]


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """Show an error that was raised on purpose as one line, and leave with status 1."""
    try:
        yield
    except ContextsegError as error:
        tell(errors, f" {error}", "error:", "red")
        raise typer.Exit(1) from None


@app.callback()
def begin() -> None:
    """Learn semantic classes from unlabelled images, and predict masks."""
    keep_freed_memory()  # the process is ours; one that calls the verbs decides for itself


@app.command()
def fit(
    images: Annotated[
        Path,
        typer.Argument(help="A folder of images; its subfolders are searched too. Labels are never read."),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="The run folder to make.")],
    classes: Annotated[str | None, typer.Option(help="How many classes to find; auto lets the images decide.")] = None,
    method: Annotated[
        str | None,
        typer.Option(help="How they are learnt: context, picie, mdc, iic, densesiam, stego, kmeans, lab."),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="A YAML file of settings; options here are laid over it.")] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Any setting, such as training.batch_size=8; `contextseg settings` lists them.",
        ),
    ] = None,
    backbone: Backbone = None,
    weights: Annotated[Path | None, typer.Option(help="A local checkpoint of the backbone to start from.")] = None,
    start: Annotated[
        str | None, typer.Option(help="pretrain: train the backbone on these images first, without labels.")
    ] = None,
    epochs: Epochs = None,
    seed: Seed = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was broken off.")] = False,
) -> None:
    """Learn classes from a folder of unlabelled images."""
    with _one_line_errors():
        from contextseg.run_folder import RunFolder
        from contextseg.settings import load_settings, make_settings, override

        values: dict[str, Any] = load_settings(config) if config else {}
        if resume and not config:
            values = load_settings(RunFolder.open(out).path / "settings.yaml")
        options = {
            "n_classes": int(classes) if classes is not None and classes.isdecimal() else classes,
            "method": method,
            "backbone.name": backbone,
            "backbone.weights": weights,
            "start": start,
            "training.epochs": epochs,
            "seed": seed,
        }
        values = override(values, _given(options, assignments))
        if "n_classes" not in values:
            raise SettingsError("how many classes? Give --classes 8, say, or --classes auto to let the images decide")
        settings = make_settings(values)
        from contextseg import verbs

        run = verbs.fit(images, out, settings, resume=resume, console=console)
        tell(console, f"finished: {run.path}. Next: contextseg predict {run.path} IMAGES -o MASKS")


@app.command()
def pretrain(
    images: Annotated[Path, typer.Argument(help="A folder of images; its subfolders are searched too.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The weights to make: NAME.safetensors.")],
    method: Annotated[str | None, typer.Option(help="What is learnt: vicregl, simsiam.")] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any setting, such as pretraining.batch_size=64."),
    ] = None,
    backbone: Backbone = None,
    weights: Annotated[Path | None, typer.Option(help="A local checkpoint to go on from; random without.")] = None,
    epochs: Epochs = None,
    seed: Seed = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where it was broken off.")] = False,
) -> None:
    """Train a backbone on unlabelled images by self-supervision: weights for `fit --weights`."""
    with _one_line_errors():
        from contextseg.settings import make_pretraining_settings, override

        options = {
            "pretraining.method": method,
            "backbone.name": backbone,
            "backbone.weights": weights,
            "pretraining.epochs": epochs,
            "seed": seed,
        }
        settings = make_pretraining_settings(override({}, _given(options, assignments)))
        from contextseg import verbs

        verbs.pretrain(images, out, settings, resume=resume, console=console)
        name = settings.backbone.name
        tell(console, f"finished: {out}. Next: contextseg fit IMAGES -o RUN --backbone {name} --weights {out}")


@app.command()
def predict(
    run: Run,
    images: Images,
    out: Annotated[Path, typer.Option("-o", "--out", help="Where the masks go, in the folders of the images.")],
    confidence: Annotated[
        bool, typer.Option("--confidence", help="Write OUT/confidence/*.png too: 255 is certain.")
    ] = False,
    raw: Annotated[
        bool, typer.Option("--raw", help="The clusters as they were found: nothing merged, nothing hidden.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Write only the masks that are missing.")] = False,
    half: Annotated[
        bool,
        typer.Option("--half", help="Half precision: faster, and about one pixel in a hundred gets another class."),
    ] = False,
    device: Device = "cpu",
) -> None:
    """Write a mask for each image: an indexed PNG of the image's size, whose values are class ids."""
    with _one_line_errors():
        from contextseg import verbs

        options: dict[str, Any] = {
            "confidence": confidence,
            "raw": raw,
            "resume": resume,
            "half": half,
            "device": device,
        }
        tell_left_out(console, verbs.predict(run, images, out, **options, console=console))


@app.command()
def evaluate(
    run: Run,
    data: Annotated[Path, typer.Argument(help="A labelled set, in a layout that `contextseg datasets` shows.")],
    split: Split = None,
    data_set: DataSetName = None,
    probe: Annotated[
        str | None,
        typer.Option(
            help="linear or knn: score what a classifier that READS THE LABELS of another split makes of the frozen "
            "embeddings; writes RUN/scores-PROBE.json."
        ),
    ] = None,
    probe_split: Annotated[
        str | None, typer.Option(help="The split whose labels the probe reads; train by default.")
    ] = None,
    fresh_clusters: Annotated[
        Path | None,
        typer.Option(metavar="IMAGES", help="Cluster the embeddings of these images afresh by k-means, as PiCIE does."),
    ] = None,
    flip: Annotated[bool, typer.Option("--flip", help="Average the scores with those of the mirrored image.")] = False,
    refine: Annotated[bool, typer.Option("--refine", help="Filter the scores along the edges of the image.")] = False,
    merged: Annotated[
        bool, typer.Option("--merged", help="Count merged clusters as one; by default each counts.")
    ] = False,
    device: Device = "cpu",
) -> None:
    """Match the clusters to the classes of a labelled set, and score them; writes RUN/scores.json."""
    with _one_line_errors():
        from contextseg import verbs
        from contextseg.evaluation.table import scores_table

        scores = verbs.evaluate(
            run,
            data,
            split=split,
            data_set=data_set,
            probe=probe,
            probe_split=probe_split,
            fresh_clusters=fresh_clusters,
            flip=flip,
            refine=refine,
            merged=merged,
            device=device,
            console=console,
        )
        console.print(scores_table(scores))


datasets = typer.Typer()
app.add_typer(datasets, name="datasets")


@datasets.callback(invoke_without_command=True)
def list_data_sets(context: typer.Context) -> None:
    """Show the labelled sets that `evaluate` reads: name, classes, source, and how their folders must look."""
    if context.invoked_subcommand is None:
        from contextseg.data.listing import print_data_sets

        print_data_sets(console)


@datasets.command()
def check(
    name: Annotated[str, typer.Argument(help="A name that `contextseg datasets` shows.")],
    root: Annotated[Path, typer.Argument(help="The folder of the data set.")],
    split: Split = None,
) -> None:
    """Open every image and label of a copy; tell what is missing, damaged or of another size, and exit with 1 then."""
    with _one_line_errors():
        from contextseg.data.check import check_copy
        from contextseg.data.labelled import named_data_set
        from contextseg.data.listing import print_checked

        with Progress(*Progress.get_default_columns(), MofNCompleteColumn(), console=console, transient=True) as bar:
            task = bar.add_task("checking", total=None)
            checked = check_copy(
                named_data_set(name),
                root,
                split,
                on_progress=lambda done, total: bar.update(task, completed=done, total=total),
            )
        print_checked(console, checked)
        if any(one.faults for one in checked):
            raise typer.Exit(1)


@app.command()
def name(
    run: Run,
    names: Annotated[list[str] | None, typer.Argument(metavar="ID=NAME", help="Such as 3=sky '7=dirt road'.")] = None,
) -> None:
    """Name classes; without names, show them."""
    with _one_line_errors():
        from contextseg import naming

        pairs = [text.partition("=") for text in names or []]
        console.print(naming.classes_table(naming.name(run, {_class_id(id_): text for id_, _, text in pairs})))


@app.command()
def merge(
    run: Run,
    ids: Annotated[str, typer.Argument(help="Such as 3,5: class 5 becomes part of class 3.")],
    undo: Annotated[bool, typer.Option("--undo", help="Take this merge back.")] = False,
) -> None:
    """Make classes part of another one, in all masks that are written from now on."""
    with _one_line_errors():
        from contextseg import naming

        into, *others = map(_class_id, ids.split(","))
        if not others:
            raise ClassesError(f"got '{ids}', expected two ids or more, such as 3,5: class 5 becomes part of class 3")
        console.print(naming.classes_table(naming.merge(run, into, others, undo=undo)))


@app.command()
def split(
    run: Run,
    images: Annotated[Path, typer.Argument(help="Images that show the cluster.", show_default=False)],
    cluster: Annotated[int, typer.Argument(help="Its id.", show_default=False)],
    out: Annotated[Path, typer.Option("-o", "--out", help="A new folder for the run with its parts.")],
    into: Annotated[int, typer.Option(min=2, help="How many parts.")] = 2,
    device: Device = "cpu",
) -> None:
    """Divide a cluster that is two things by what it looks like; writes a new run, and trains nothing."""
    with _one_line_errors():
        from contextseg.classes import Classes
        from contextseg.naming import classes_table
        from contextseg.splitting import split as split_cluster

        made = split_cluster(run, images, cluster, out, into=into, device=device, console=console)
        console.print(classes_table(Classes.read(made.classes)))


@app.command()
def hide(
    run: Run,
    ids: Annotated[str, typer.Argument(help="Such as 4, or 4,6.")],
    undo: Annotated[bool, typer.Option("--undo", help="Show them again.")] = False,
) -> None:
    """Make classes background, in all masks that are written from now on."""
    with _one_line_errors():
        from contextseg import naming

        console.print(naming.classes_table(naming.hide(run, [_class_id(id_) for id_ in ids.split(",")], undo=undo)))


@app.command()
def export(
    run: Run,
    out: Annotated[Path, typer.Option("-o", "--out", help="A new folder; for onnx a file.")],
    format: Annotated[
        str,
        typer.Option(
            help="png, voc (for CVAT), coco-panoptic, coco-rle, label-studio, datumaro, fiftyone, geotiff or npy; "
            "onnx: the run as one file."
        ),
    ],
    images: Annotated[
        Path | None, typer.Argument(help="A folder of images, or one image; none for onnx.", show_default=False)
    ] = None,
    scale: Annotated[
        float | None, typer.Option(help="geotiff: pixels of the network per pixel of the raster; 1 by default.")
    ] = None,
    device: Device = "cpu",
) -> None:
    """Predict masks, and write them as the tool that you use reads them; or write the run as an ONNX file."""
    with _one_line_errors():
        from contextseg import verbs

        options: dict[str, Any] = {"format": format, "scale": scale, "device": device}
        tell_left_out(console, verbs.export(run, images, out, **options, console=console))


@app.command()
def compare(
    data: Annotated[Path, typer.Argument(help="A labelled set; training sees its images alone.")],
    methods: Annotated[
        str, typer.Option(help="Names with commas; a file of settings that ends in .yaml is a row too.")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="Gets every run, table.md, table.csv and plot.png.")],
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each method.")] = 3,
    split: Annotated[str | None, typer.Option(help="The split that is scored, such as val; all by default.")] = None,
    data_set: DataSetName = None,
    images: Annotated[
        Path | None, typer.Option(help="The images to train on, where they are not those of the set.")
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting of all rows; it wins over their files."),
    ] = None,
    backbone: Annotated[str | None, typer.Option(help="The timm network of all rows.")] = None,
    weights: Annotated[Path | None, typer.Option(help="The local checkpoint that all rows start from.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the images, for all rows.")] = None,
) -> None:
    """Train and score several methods under one protocol, and print one table; goes on where it stopped."""
    with _one_line_errors():
        from contextseg.comparison.compare import compare
        from contextseg.settings import override

        shared = {
            "backbone.name": backbone,
            "backbone.weights": weights,
            "training.epochs": epochs,
        }
        settings = override({}, _given(shared, assignments))
        compare(
            data,
            methods.split(","),
            out,
            n_seeds=seeds,
            settings=settings,
            split=split,
            data_set=data_set,
            images=images,
            console=console,
        )


@app.command()
def review(
    run: Run,
    images: Images,
    masks: Annotated[
        Path | None,
        typer.Option(help="Masks by `predict --raw --confidence`; by default those that are missing are predicted."),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="On 127.0.0.1; 0 for any that is free.")] = 8765,
    device: Device = "cpu",
) -> None:
    """Look at what was found on a page in the browser; name, merge, hide and correct it."""
    with _one_line_errors():
        from contextseg.extras import import_extra

        serve = import_extra("contextseg.review.serve", "review")
        serve.review(run, images, masks=masks, port=port, device=device, console=console)


@app.command()
def report(
    run: Run,
    images: Annotated[
        Path | None,
        typer.Argument(help="A folder of images, to show what the clusters look like.", show_default=False),
    ] = None,
    sample: Annotated[int, typer.Option(min=1, help="Images that are looked at, at most.")] = 200,
    device: Device = "cpu",
) -> None:
    """Write RUN/report.html: curves, clusters with typical regions, examples, scores; one file, for any browser."""
    with _one_line_errors():
        from contextseg import reporting

        page = reporting.report(run, images, n_images=sample, device=device, console=console)
        tell(console, f"written: {page}")


@app.command()
def settings(
    part: Annotated[str, typer.Argument(help="Those with this in their names, such as training or guidance.")] = "",
) -> None:
    """List what `--set` and files of settings may set, with the defaults; reads nothing and writes nothing."""
    with _one_line_errors():
        from contextseg.settings import described

        table = Table(Column("setting", no_wrap=True), "default", "what it is")
        for name, words in described().items():
            if part in name:
                table.add_row(*(Text(cell) for cell in (name, *words)))
        if not table.row_count:
            raise SettingsError(f"'{part}' is in no setting's name; `contextseg settings` lists them all")
        console.print(table)


@app.command()
def demo(
    out: Annotated[Path, typer.Option("-o", "--out", help="A new folder for the demo's data, run and picture.")] = Path(
        "demo"
    ),
    images: Annotated[int, typer.Option(help="Images to train on.")] = 240,
    seed: Annotated[int, typer.Option(help="Every random draw follows from it.")] = 0,
) -> None:
    """Generate outdoor scenes, learn their classes without labels, and show masks beside the truth."""
    with _one_line_errors():
        from contextseg.demo import run_demo

        run_demo(out, n_images=images, seed=seed, console=console)


def _given(options: Mapping[str, object], assignments: Sequence[str] | None) -> list[str]:
    """Return the options that were given as assignments; those of `--set` come after them, and win.

    Texts are quoted, so that a file called ``my #1.safetensors`` is not read as YAML.
    """
    given = {key: value for key, value in options.items() if value is not None}
    quoted = {
        key: value if isinstance(value, int) else json.dumps(str(value), ensure_ascii=False)
        for key, value in given.items()
    }
    return [*(f"{key}={value}" for key, value in quoted.items()), *(assignments or [])]


def _class_id(text: str) -> int:
    if not text.strip().isdecimal():
        raise ClassesError(f"got '{text}' for a class, expected its id, such as 3")
    return int(text)
