"""From mappings, YAML and ``--set`` to settings, and errors that name the key."""

import difflib
import json
import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from contextseg.errors import SettingsError
from contextseg.settings.methods import METHOD_SECTIONS
from contextseg.settings.sections import PretrainingSettings, Section
from contextseg.settings.tree import Settings


def make_settings(values: Mapping[str, Any]) -> Settings:
    """Build the settings from a nested mapping.

    Raises:
        SettingsError: names each wrong key with what was got; an unknown key names the nearest real one.

    >>> make_settings({"n_classes": 3, "training": {"epoch": 5}})
    Traceback (most recent call last):
        ...
    contextseg.errors.SettingsError: training.epoch: no such setting; did you mean 'training.epochs'?
    """
    try:
        return Settings.model_validate(dict(values))
    except ValidationError as error:
        raise SettingsError("; ".join(_explain(detail) for detail in error.errors())) from None


def make_pretraining_settings(values: Mapping[str, Any]) -> Settings:
    """Build the settings of a pre-training by itself, which trains the backbone alone.

    Raises:
        SettingsError: as `make_settings`, and for a setting that only a run with classes reads.

    >>> make_pretraining_settings({"training": {"epochs": 5}})
    Traceback (most recent call last):
        ...
    contextseg.errors.SettingsError: training.epochs: pre-training does not read it; it has pretraining.epochs
    """
    for name in ("n_classes", "method", "start", "clustering", *METHOD_SECTIONS):
        if name in values:
            raise SettingsError(f"{name}: pre-training does not read it; it trains the backbone alone")
    training = values.get("training")
    for name in PretrainingSettings().schedule():
        if isinstance(training, Mapping) and name in training:
            near = f"pretraining.{name}" if name in PretrainingSettings.model_fields else "no such setting"
            raise SettingsError(f"training.{name}: pre-training does not read it; it has {near}")
    unread = {"n_classes": 2, "method": "picie"}  # a run must have them; nothing is clustered
    return make_settings({**values, **unread, "start": "pretrain"})


def load_settings(path: Path) -> dict[str, Any]:
    """Read a nested mapping of settings from a YAML file.

    Raises:
        SettingsError: the file is missing or does not hold a mapping.
    """
    try:
        values = _read_yaml(path.read_text(encoding="utf-8"))
    except (OSError, *_YAML_ERRORS) as error:
        raise SettingsError(f"{path}: cannot be read as YAML settings: {error}") from error
    if not isinstance(values, dict):
        raise SettingsError(
            f"{path}: holds {type(values).__name__}, expected 'key: value' lines such as 'n_classes: 8'"
        )
    return values


def override(values: Mapping[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """Return `values` with dotted assignments laid over them; nothing is changed in place.

    >>> override({"training": {"epochs": 5}}, ["training.batch_size=8", "seed=2"])
    {'training': {'epochs': 5, 'batch_size': 8}, 'seed': 2}
    """
    result: dict[str, Any] = dict(values)
    for assignment in assignments:
        dotted, separator, text = assignment.partition("=")
        if not separator or not dotted:
            raise SettingsError(f"--set got '{assignment}', expected key=value such as training.epochs=5")
        try:
            value = _read_yaml(text)
        except _YAML_ERRORS as error:
            raise SettingsError(f"--set {dotted}: the value '{text}' cannot be read: {error}") from error
        _assign(result, dotted.split("."), value)
    return result


class _Loader(yaml.SafeLoader):
    """YAML without aliases, by which a short file can stand for more than memory holds."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it has aliases (*name), which settings do without")
        return super().compose_node(parent, index)


# a date such as 2001-13-01 and an integer of 5000 digits are ValueErrors
_YAML_ERRORS = (yaml.YAMLError, ValueError, RecursionError)


def _read_yaml(text: str) -> Any:
    return yaml.load(text, _Loader)


def _assign(tree: dict[str, Any], keys: list[str], value: Any) -> None:
    *parents, last = keys
    for key in parents:
        branch = tree.get(key) or {}
        if not isinstance(branch, Mapping):
            raise SettingsError(f"{key}: got {branch!r}, expected settings of its own, such as {'.'.join(keys)}")
        tree[key] = tree = dict(branch)
    tree[last] = value


def _explain(detail: Any) -> str:
    """Put one pydantic error into a line: which key, what was got, what would work."""
    keys = [str(key) for key in detail["loc"]]
    dotted = ".".join(keys)
    if detail["type"] == "extra_forbidden":
        nearest = difflib.get_close_matches(dotted, setting_names(), n=1, cutoff=0.0)
        return f"{dotted}: no such setting; did you mean '{nearest[0]}'?"
    if detail["type"] == "missing":
        return f"{dotted}: is missing; give a value such as {dotted}=8"
    if detail["type"] == "value_error":
        return f"{dotted}: {detail['ctx']['error']}" if dotted else str(detail["ctx"]["error"])
    return f"{dotted}: got {reprlib.repr(detail['input'])}; {detail['msg'][0].lower()}{detail['msg'][1:]}"


def setting_names() -> list[str]:
    """Return the dotted names of all settings."""
    return list(described())


def described(section: type[Section] = Settings, prefix: str = "") -> dict[str, tuple[str, str]]:
    """Return the dotted name of each setting with its default, as ``--set`` takes it, and what it is."""
    found: dict[str, tuple[str, str]] = {}
    for name, field in section.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, Section):
            found |= described(annotation, f"{prefix}{name}.")
        else:
            default = "must be given" if field.is_required() else field.get_default(call_default_factory=True)
            found[prefix + name] = default if isinstance(default, str) else json.dumps(default), field.description or ""
    return found
