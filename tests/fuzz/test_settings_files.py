from pathlib import Path

import pytest
import yaml
from damage import damaged, inputs
from hypothesis import given
from hypothesis import strategies as st

from contextseg.errors import SettingsError
from contextseg.settings import load_settings, make_settings, override, setting_names

REAL = make_settings({"n_classes": 5, "backbone": {"options": {"drop_rate": 0.1}}}).to_yaml().encode()
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates() | st.binary(max_size=3)
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
)
NAMES = st.sampled_from(setting_names())


def use(path: Path) -> None:
    """What a run does with a file of settings: they can be written and read again."""
    try:
        settings = make_settings(load_settings(path))
    except SettingsError:
        return
    path.write_text(settings.to_yaml(), encoding="utf-8")
    assert make_settings(load_settings(path)) == settings


@inputs
@given(content=damaged(REAL) | st.binary(max_size=60) | st.text(st.characters(codec="utf-8")).map(str.encode))
def test_file(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "settings.yaml"
    path.write_bytes(content)
    use(path)


@inputs
@given(values=st.dictionaries(NAMES | st.text(max_size=9), VALUES, max_size=4), options=VALUES)
def test_values(tmp_path_factory: pytest.TempPathFactory, values: dict[str, object], options: object) -> None:
    tree: dict[str, object] = {"n_classes": 3, "backbone": {"options": options}}
    for name, value in values.items():
        section, _, key = name.partition(".")
        tree[section] = {key: value} if key else value
    path = tmp_path_factory.getbasetemp() / "values.yaml"
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    use(path)


@inputs
@given(name=NAMES | st.text(max_size=9), text=st.text(st.characters(codec="utf-8"), max_size=20))
def test_assignment(name: str, text: str) -> None:
    try:
        make_settings(override({"n_classes": 3}, [f"{name}={text}"]))
    except SettingsError:
        return


def test_the_same_part_a_billion_times(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    (tmp_path / "bomb.yaml").write_text("\n".join([*lines, "n_classes: *a9"]))
    with pytest.raises(SettingsError, match=r"bomb\.yaml: cannot be read as YAML settings: .*aliases"):
        make_settings(load_settings(tmp_path / "bomb.yaml"))


def test_a_thousand_brackets(tmp_path: Path) -> None:
    (tmp_path / "deep.yaml").write_text("n_classes: " + 10_000 * "[")
    with pytest.raises(SettingsError, match="cannot be read as YAML settings"):
        load_settings(tmp_path / "deep.yaml")
