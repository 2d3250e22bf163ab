import ast
import copy
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.numpy import save_file

import contextseg
from contextseg.errors import SettingsError
from contextseg.settings import (
    FROM_RANDOM,
    METHOD_SECTIONS,
    BackboneSettings,
    Section,
    Settings,
    TrainingSettings,
    described,
    load_settings,
    make_pretraining_settings,
    make_settings,
    override,
    setting_names,
)

SOURCE = Path(contextseg.__file__).parent


def made(**values):
    return make_settings({"n_classes": 5} | values)


def fields(section=Settings, prefix=""):
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from fields(field.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name, field


def test_the_number_of_classes_is_all_that_must_be_said():
    for method in METHOD_SECTIONS:
        assert made(method=method).n_classes == 5
    with pytest.raises(SettingsError, match="n_classes: is missing; give a value such as n_classes=8"):
        make_settings({})


def test_every_setting_has_a_sentence():
    sentences = {name: field.description or "" for name, field in fields()}
    assert [name for name, sentence in sentences.items() if len(sentence.split()) < 3] == []
    assert list(sentences) == setting_names()
    assert len(sentences) > 30


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"training": {"epoch": 5}}, r"training\.epoch: no such setting; did you mean 'training\.epochs'\?"),
        ({"views": {"gray_p": 0.2}}, r"views\.gray_p: no such setting; did you mean 'views\.grey_p'\?"),
        ({"n_class": 5}, r"n_class: no such setting; did you mean 'n_classes'\?"),
        ({"picie": {"dims": 9}}, r"picie\.dims: no such setting; did you mean 'picie\.dim'\?"),
    ],
)
def test_an_unknown_key_names_the_nearest(values, message):
    with pytest.raises(SettingsError, match=message):
        made(**values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"training": {"epochs": "many"}}, r"training\.epochs: got 'many'; input should be a valid integer"),
        ({"views": {"flip_p": [1]}}, r"views\.flip_p: got \[1\]; input should be a valid number"),
        ({"views": {"hue": [0.1]}}, r"views\.hue\.1: "),
        ({"data": 5}, "data: got 5; input should be a valid dictionary"),
        ({"training": None}, "training: got None"),
        ({"method": "hp"}, "method: got 'hp'; input should be 'context', 'picie', 'mdc', .*'kmeans' or 'lab'"),
        ({"seed": 1.5}, r"seed: got 1\.5"),
    ],
)
def test_a_wrong_type_names_the_key_and_the_value(values, message):
    with pytest.raises(SettingsError, match=message):
        made(**values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"n_classes": 1}, "n_classes: got 1; input should be greater than or equal to 2"),
        ({"n_classes": 5000}, "n_classes: got 5000; input should be less than or equal to 4096"),
        ({"seed": -1}, "seed: got -1"),
        ({"data": {"image_px": 200}}, r"image_px is 200; it must be a multiple of 32, such as 192"),
        ({"data": {"image_px": 310}}, r"such as 320"),
        ({"data": {"image_px": 16}}, r"data\.image_px: got 16"),
        ({"views": {"frame_px": 150}}, r"frame_px is 150; it must be a multiple of 32, such as 160"),
        (
            {"views": {"frame_px": 224}, "data": {"image_px": 192}},
            r"frame_px is 224 and data\.image_px is 192; the square must fit",
        ),
        ({"views": {"grey_p": 1.2}}, r"views\.grey_p: got 1\.2; input should be less than or equal to 1"),
        ({"views": {"jitter_p": -0.1}}, r"views\.jitter_p: got -0\.1"),
        ({"views": {"min_scale": 0}}, r"views\.min_scale: got 0; input should be greater than 0"),
        (
            {"views": {"brightness": [1.3, 0.7]}},
            r"brightness is \(1\.3, 0\.7\); the first must not be above the second",
        ),
        ({"views": {"blur_sigma_px": [2, 1]}}, r"blur_sigma_px is \(2\.0, 1\.0\)"),
        ({"views": {"hue": [0, float("nan")]}}, r"views\.hue\.1: got nan; input should be a finite number"),
        ({"training": {"learning_rate": float("inf")}}, r"training\.learning_rate: got inf"),
        ({"training": {"learning_rate": 0}}, r"training\.learning_rate: got 0"),
        ({"training": {"batch_size": 1}}, r"training\.batch_size: got 1"),
        ({"picie": {"temperature": 0}}, r"picie\.temperature: got 0"),
        ({"method": "picie", "picie": {"overclusters": 1}}, r"picie\.overclusters: got 1"),
        (
            {"method": "picie", "picie": {"overclusters": 100}, "clustering": {"max_points": 60}},
            r"clustering\.max_points is 60 and the largest head has 100 clusters",
        ),
        (
            {"method": "iic", "iic": {"displacement": 8}, "views": {"frame_px": 32}},
            r"iic\.displacement is 8 cells and views\.frame_px is 32, which is 8 cells; lower the displacement",
        ),
        ({"picie": {"class_weights": "rare"}}, r"picie\.class_weights: got 'rare'; .*'none', 'counts' or 'inverse'"),
        (
            {"method": "kmeans", "kmeans": {"strides": [0]}},
            r"kmeans\.strides\.0: got 0; input should be greater than or equal to 1",
        ),
        ({"method": "kmeans", "kmeans": {"strides": []}}, r"kmeans\.strides: got \[\]"),
        ({"method": "lab", "lab": {"position_weight": -1}}, r"lab\.position_weight: got -1"),
        ({"backbone": {"weights": "a.pth", "pretrained": True}}, r"backbone: weights and pretrained are two different"),
    ],
)
def test_a_value_out_of_range(values, message):
    with pytest.raises(SettingsError, match=message):
        made(**values)


def test_every_wrong_key_is_named_at_once():
    with pytest.raises(SettingsError, match=r"training\.epochs: got 0.*; training\.lr: no such setting"):
        made(training={"epochs": 0, "lr": 1})


@pytest.mark.parametrize("method", METHOD_SECTIONS)
@pytest.mark.parametrize("section", METHOD_SECTIONS)
def test_the_section_of_another_method_is_refused(method, section):
    if section == method:
        assert made(method=method, **{section: {}}).method == method
    else:
        with pytest.raises(SettingsError, match=f"section '{section}' is set but the method is '{method}'"):
            made(method=method, **{section: {}})


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"method": "kmeans", "kmeans": {"strides": [8, 32]}, "seed": 12},
        {"method": "lab", "lab": {"position_weight": 0.25}},
        {"start": "pretrain", "pretraining": {"method": "simsiam", "epochs": 3}},
        {"context": {"guidance": {"scales": [0.5, 2.0], "teacher": "student"}, "embedding": {"geometry": False}}},
        {
            "method": "picie",
            "picie": {"dim": 70, "class_weights": "inverse", "temperature": 0.05},
            "backbone": {
                "name": "convnext_atto",
                "weights": "weights/a b.pth",
                "mean": [0.1, 0.2, 0.3],
                "start": "SSL: x",
            },
            "views": {"hue": [-0.2, 0.3], "frame": "centre"},
            "training": {"learning_rate": 1e-7},
        },
    ],
)
def test_yaml_holds_everything_and_is_read_back(tmp_path, values):
    settings = made(**values)
    (tmp_path / "settings.yaml").write_text(settings.to_yaml(), encoding="utf-8")
    read = load_settings(tmp_path / "settings.yaml")
    assert make_settings(read) == settings
    # Resolved: the defaults are written down as well, so that a later version's defaults do not change the run.
    unread = METHOD_SECTIONS.keys() - {settings.method} | ({"pretraining"} if settings.start == "backbone" else set())
    others = tuple(f"{section}." for section in unread)
    for name in setting_names():
        if not name.startswith(others):
            value = read
            for key in name.split("."):
                value = value[key]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"- 1\n- 2\n", "holds list, expected 'key: value' lines such as 'n_classes: 8'"),
        (b"", "holds NoneType"),
        (b"a: [1\n", "cannot be read as YAML settings"),
        (b"\xff\xfe\x00", "cannot be read as YAML settings"),
        (b"!!python/object/apply:os.getcwd []", "cannot be read as YAML settings"),
    ],
)
def test_a_file_that_holds_no_settings(tmp_path, content, message):
    (tmp_path / "bad.yaml").write_bytes(content)
    with pytest.raises(SettingsError, match=rf"bad\.yaml: {message}"):
        load_settings(tmp_path / "bad.yaml")


def test_a_missing_file(tmp_path):
    with pytest.raises(SettingsError, match=r"none\.yaml: cannot be read"):
        load_settings(tmp_path / "none.yaml")


def test_override_changes_nothing_in_place():
    values = {"n_classes": 5, "training": {"epochs": 5}, "backbone": {"options": {"a": {"b": 1}}}}
    before = copy.deepcopy(values)
    found = override(values, ["training.epochs=7", "backbone.options.a.b=2", "seed=3", "views.hue=[-0.1, 0.2]"])
    assert values == before
    assert found == {
        "n_classes": 5,
        "training": {"epochs": 7},
        "backbone": {"options": {"a": {"b": 2}}},
        "seed": 3,
        "views": {"hue": [-0.1, 0.2]},
    }


def test_later_assignments_win_and_values_are_yaml():
    found = override(
        {}, ["seed=1", "seed=2", "backbone.weights=null", "training.learning_rate=1e-5", "backbone.start=a=b"]
    )
    assert found["seed"] == 2
    assert found["backbone"] == {"weights": None, "start": "a=b"}
    assert made(**found).training.learning_rate == 1e-5


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("training.epochs", r"--set got 'training\.epochs', expected key=value such as training\.epochs=5"),
        ("=5", "expected key=value"),
        ("seed=[1", r"--set seed: the value '\[1' cannot be read"),
    ],
)
def test_an_assignment_that_cannot_be_read(assignment, message):
    with pytest.raises(SettingsError, match=message):
        override({}, [assignment])


def test_settings_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        made().training.epochs = 3


def test_the_given_mapping_is_not_changed():
    values = {"n_classes": 5, "views": {"hue": [0, 0.1]}, "backbone": {"options": {"drop_rate": 0.1}}}
    before = yaml.safe_dump(values)
    make_settings(values)
    assert yaml.safe_dump(values) == before


def test_two_settings_share_nothing_that_can_change():
    made().backbone.options["drop_rate"] = 0.5
    assert made().backbone.options == {}


@pytest.mark.parametrize(("method", "rate"), [("context", 1e-3), ("mdc", 1e-4), ("densesiam", 3e-3), ("stego", 5e-4)])
def test_each_method_has_the_learning_rate_it_was_published_with(method, rate):
    assert made(method=method).training.learning_rate == rate
    decay = 0.5 if method == "context" else 0
    expected = TrainingSettings(epochs=2, learning_rate=rate, decay=decay)
    assert made(method=method, training={"epochs": 2}).training == expected
    assert made(method=method, training=TrainingSettings(epochs=2)).training.learning_rate == rate
    # what is given is taken, be it the default of others
    for given in (1e-4, 0.2):
        assert made(method=method, training={"learning_rate": given}).training.learning_rate == given


KNOWN = {"backbone": {"weights": "a.pt"}}


@pytest.mark.parametrize(
    ("start", "rate", "teacher"),
    [
        ({}, 1e-3, "student"),
        ({"start": "pretrain"}, 1e-3, "student"),
        (KNOWN, 1e-4, "start"),
        (KNOWN | {"start": "pretrain"}, 1e-4, "start"),
        ({"backbone": {"pretrained": True}}, 1e-4, "start"),
    ],
)
def test_context_leans_on_what_it_learns_where_the_start_knows_little(start, rate, teacher):
    settings = made(**start)
    assert (settings.training.learning_rate, settings.context.guidance.teacher) == (rate, teacher)
    assert f"teacher: {teacher}" in settings.to_yaml()
    many = made(n_classes=11, **start).context
    assert many.embedding.to_the_end == (teacher == "start")
    assert (many.n_draws, many.n_partitions) == ((3, 12) if teacher == "start" else (1, 32))
    for few in (5, 10, "auto"):
        own = made(n_classes=few, **start).context
        assert (own.embedding.to_the_end, own.n_draws, own.n_partitions) == (False, 1, 32)
    own = made(n_classes=11, **start, context={"n_draws": 2}).context
    assert (own.n_draws, own.n_partitions) == (2, 12)
    own = made(n_classes=11, **start, context={"n_partitions": 7}).context
    assert own.n_partitions == 7
    for to_the_end in (True, False):
        assert (
            made(**start, context={"embedding": {"to_the_end": to_the_end}}).context.embedding.to_the_end is to_the_end
        )
    given = made(**start, training={"learning_rate": 0.2}, context={"guidance": {"teacher": "start"}})
    assert (given.training.learning_rate, given.context.guidance.teacher) == (0.2, "start")
    assert made(method="picie", **start).training == made(method="picie").training


def test_a_file_of_weights_may_say_that_it_knows_little(tmp_path):
    weights = {name: tmp_path / name for name in ("little.safetensors", "much.safetensors", "broken.safetensors", "no")}
    zeros = {"a": np.zeros(3, np.float32)}
    save_file(zeros, weights["little.safetensors"], {FROM_RANDOM: "true"})
    save_file(zeros, weights["much.safetensors"], {"format": "pt"})
    weights["broken.safetensors"].write_bytes(weights["little.safetensors"].read_bytes()[:40])
    for path in (*weights.values(), tmp_path):
        settings = made(n_classes=11, backbone={"weights": path})
        expected = (1e-3, "student") if path.name == "little.safetensors" else (1e-4, "start")
        assert (settings.training.learning_rate, settings.context.guidance.teacher) == expected, path
        assert settings.context.embedding.to_the_end == (path.name != "little.safetensors"), path
    of_run = made(backbone={"weights": weights["little.safetensors"]})
    weights["little.safetensors"].unlink()
    assert make_settings(yaml.safe_load(of_run.to_yaml())) == of_run  # a finished run needs its start no more


@pytest.mark.parametrize(("epochs", "first"), [(1, 0), (2, 1), (3, 2), (5, 4), (10, 8)])
def test_regions_of_densesiam_count_in_the_last_fifth(epochs, first):
    settings = made(method="densesiam", training={"epochs": epochs})
    assert settings.densesiam.region_from_epoch == first
    assert made(method="densesiam", densesiam={"region_from_epoch": 7}).densesiam.region_from_epoch == 7
    # resolved: a run that is given more epochs keeps the epoch it has
    assert f"region_from_epoch: {first}" in settings.to_yaml()


@pytest.mark.parametrize(
    ("values", "start"),
    [
        ({}, "random"),
        ({"pretrained": True}, "timm weights 'resnet18'"),
        ({"weights": "some/folder/moco.pth"}, "weights moco.pth"),
        ({"weights": "some/folder/moco.pth", "start": "ImageNet, MoCo v2"}, "ImageNet, MoCo v2"),
    ],
)
def test_the_start_in_words(values, start):
    assert BackboneSettings(**values).describe_start() == start


def test_every_default_is_told_as_it_may_be_set():
    defaults = described()
    assert defaults.pop("n_classes")[0] == "must be given"
    for name, (default, words) in defaults.items():
        section = name.partition(".")[0]
        least = {"n_classes": 3, "method": section if section in METHOD_SECTIONS else "picie"}
        least |= {} if name != "method" else {"method": "context"}
        assert make_settings(override(least, [f"{name}={default}"])) == make_settings(least), name
        assert words


def read_names():
    """Names of attributes in the package outside of settings/, whose own checks do not count."""
    names = set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and path.parent.name != "settings":
                names.add(node.attr)
    return names


def test_every_setting_is_read():
    """An option that does nothing is the first trap of PiCIE's released code."""
    leaves = {name.rpartition(".")[2] for name in setting_names()}
    # backbone.start is read by describe_start, which test_the_start_in_words has.
    assert leaves - read_names() - {"start"} == set()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"training": {"epochs": 3}}, r"training\.epochs: .* it has pretraining\.epochs"),
        ({"training": {"precision": "32-true", "decay": 0.5}}, r"training\.decay: .* it has no such setting"),
        ({"n_classes": 3}, "n_classes: .* the backbone alone"),
        ({"picie": {"dim": 8}}, "picie: .* the backbone alone"),
        ({"clustering": {}}, "clustering: .* the backbone alone"),
        ({"pretraining": {"epoch": 3}}, r"pretraining\.epoch: no such setting; did you mean 'pretraining\.epochs'"),
        ({"training": 3}, "training: got 3"),
    ],
)
def test_pre_training_refuses_what_it_does_not_read(values, message):
    with pytest.raises(SettingsError, match=message):
        make_pretraining_settings(values)
    read = make_pretraining_settings({"training": {"precision": "32-true"}, "pretraining": {"epochs": 3}})
    assert (read.start, read.training.precision, read.pretraining.epochs) == ("pretrain", "32-true", 3)
