"""classes.json and its changes: names, merges, background."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contextseg.classes import Classes, SegmentClass, looked_up
from contextseg.colours import palette
from contextseg.errors import ClassesError


def written(path: Path, entries: object) -> Path:
    path.write_text(json.dumps(entries), encoding="utf-8")
    return path


def old_file(n_classes: int = 4) -> list[dict[str, object]]:
    return [{"id": i, "name": f"class {i}", "colour": [i, 10 + i, 200]} for i in range(n_classes)]


def test_a_file_without_the_new_keys_reads_as_before(tmp_path: Path) -> None:
    classes = Classes.read(written(tmp_path / "classes.json", old_file()))
    assert [entry.name for entry in classes.shown()] == ["class 0", "class 1", "class 2", "class 3"]
    assert classes.survivors().tolist() == [0, 1, 2, 3]
    assert classes.values(background=255).tolist() == [0, 1, 2, 3]
    assert classes.colours_K3.tolist() == [[0, 10, 200], [1, 11, 200], [2, 12, 200], [3, 13, 200]]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    classes = Classes.numbered(5).rename({3: "Häuser", 0: " sky "}).merge(3, [1]).hide([4])
    classes.write(tmp_path / "classes.json")
    assert Classes.read(tmp_path / "classes.json", 5) == classes
    assert json.loads((tmp_path / "classes.json").read_text(encoding="utf-8")) == [
        {"id": 0, "name": "sky", "colour": palette(5)[0].tolist(), "merged_into": None, "hidden": False},
        {"id": 1, "name": "class 1", "colour": palette(5)[1].tolist(), "merged_into": 3, "hidden": False},
        {"id": 2, "name": "class 2", "colour": palette(5)[2].tolist(), "merged_into": None, "hidden": False},
        {"id": 3, "name": "Häuser", "colour": palette(5)[3].tolist(), "merged_into": None, "hidden": False},
        {"id": 4, "name": "class 4", "colour": palette(5)[4].tolist(), "merged_into": None, "hidden": True},
    ]


def test_values_by_hand() -> None:
    # 5 is part of 3 and 3 of 1: both count as 1. 2 is hidden. 0 is part of 2, so it is hidden with it.
    classes = Classes.numbered(6).merge(3, [5]).merge(1, [3]).merge(2, [0]).hide([2])
    assert classes.survivors().tolist() == [2, 1, 2, 1, 4, 1]
    assert classes.values(background=255).tolist() == [255, 1, 255, 1, 4, 1]
    assert classes.values(background=0, first=1).tolist() == [0, 2, 0, 2, 5, 2]
    assert [entry.id for entry in classes.shown()] == [1, 4]


def test_a_hidden_class_that_is_merged_counts_as_what_it_is_part_of() -> None:
    assert Classes.numbered(3).hide([2]).merge(0, [2]).values(background=9).tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("n_classes", "background", "first", "dtype"),
    [(255, 255, 0, np.uint8), (255, 0, 1, np.uint8), (256, 0, 1, np.uint16), (256, 65535, 0, np.uint16)],
)
def test_values_fit_their_type(n_classes: int, background: int, first: int, dtype: type) -> None:
    values = Classes.numbered(n_classes).hide([7]).values(background=background, first=first)
    assert values.dtype == dtype
    assert values[7] == background
    assert values[-1] == n_classes - 1 + first


@pytest.mark.parametrize("ids", [np.uint8, np.uint16, np.int64])
@pytest.mark.parametrize("values", [np.uint8, np.uint16])
def test_values_are_looked_up(ids: type, values: type) -> None:
    values_K = np.array([7, 255, 0, 7], values)
    found = looked_up(values_K, np.array([[0, 1, 2], [3, 3, 1]], ids))
    assert found.tolist() == [[7, 255, 0], [7, 7, 255]]
    assert found.dtype == values
    with pytest.raises(IndexError):
        looked_up(values_K, np.array([[0, 4]], ids))
    assert looked_up(values_K, np.zeros((0, 3), ids)).shape == (0, 3)


def test_each_change_can_be_taken_back() -> None:
    classes = Classes.numbered(4)
    assert classes.merge(2, [0, 3]).merge(2, [3], undo=True) == classes.merge(2, [0])
    assert classes.merge(2, [0, 3]).merge(2, [3, 0], undo=True) == classes
    assert classes.hide([1, 2]).hide([2], undo=True) == classes.hide([1])


@given(st.lists(st.none() | st.integers(0, 6), min_size=7, max_size=7))
def test_merges_lead_to_a_survivor_or_are_refused(into: list[int | None]) -> None:
    def follow(i: int) -> int | None:
        for _ in range(len(into)):
            if into[i] is None:
                return i
            i = into[i]
        return None  # more steps than classes: a circle

    expected = [follow(i) for i in range(len(into))]
    entries = tuple(SegmentClass(id=i, name=f"c{i}", colour=(i, 0, 0), merged_into=m) for i, m in enumerate(into))
    if None in expected:
        with pytest.raises(ClassesError, match=r"round in a circle: (\d -> )+\d"):
            Classes(entries)
    else:
        survivors = Classes(entries).survivors()
        assert survivors.tolist() == expected
        assert np.array_equal(survivors[survivors], survivors)


def test_colours_are_given_by_id() -> None:
    changed = Classes.numbered(3).recolour({2: (0, 255, 7)})
    assert changed.colours_K3.tolist() == [*palette(2).tolist(), [0, 255, 7]]
    with pytest.raises(ClassesError, match="class 1, colour, 2: got 256"):
        changed.recolour({1: (0, 0, 256)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.merge(3, [3]), "class 3 cannot become part of itself; give another class"),
        (lambda c: c.merge(3, [5]).merge(5, [3]), "round in a circle: 3 -> 5 -> 3"),
        (lambda c: c.merge(1, [0]).merge(2, [1]).merge(0, [2]), "round in a circle: 0 -> 1 -> 2 -> 0"),
        (lambda c: c.merge(3, [5]).merge(2, [5], undo=True), "class 5 is not merged into 2"),
        (lambda c: c.merge(3, [6]), "there is no class 6; ids go from 0 to 5"),
        (lambda c: c.merge(6, [3]), "class 3, merged_into: got 6; ids go from 0 to 5"),
        (lambda c: c.hide([-1]), "there is no class -1"),
        (lambda c: c.rename({9: "sky"}), "there is no class 9"),
        (lambda c: c.rename({1: " "}), "class 1, name: got ' '; a name is one line of visible characters"),
        (lambda c: c.rename({1: "a\nb"}), "class 1, name: got"),
        (lambda c: c.rename({1: "sky", 4: "sky"}), r"classes 1 and 4 .* named 'sky'; .*`contextseg merge RUN 1,4`"),
        (lambda c: c.rename({1: "sky"}).merge(2, [1]).rename({4: "sky"}).merge(2, [1], undo=True), "named 'sky'"),
    ],
)
def test_a_change_that_makes_no_sense(change: object, message: str) -> None:
    with pytest.raises(ClassesError, match=message):
        change(Classes.numbered(6))  # type: ignore[operator]


def test_names_may_repeat_where_they_are_not_shown() -> None:
    classes = (
        Classes.numbered(5).hide([0, 1]).merge(3, [4]).rename({0: "junk", 1: "junk", 4: "tree"}).rename({3: "tree"})
    )
    assert [entry.name for entry in classes.shown()] == ["class 2", "tree"]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({"name": 7}, "class 2, name: got 7; input should be a valid string"),
        ({"name": ""}, "class 2, name: got ''; a name is one line"),
        ({"colour": [1, 2]}, "class 2, colour, 2: field required"),
        ({"colour": [1, 2, 300]}, "class 2, colour, 2: got 300; input should be less than or equal to 255"),
        ({"colour": "red"}, "class 2, colour: got 'red'"),
        ({"hidden": "yes"}, "class 2, hidden: got 'yes'; input should be a valid boolean"),
        ({"merged_into": "sky"}, "class 2, merged_into: got 'sky'"),
        ({"merged_into": 4}, "class 2, merged_into: got 4; ids go from 0 to 3"),
        ({"merged_into": 2}, "the merges would go round in a circle: 2 -> 2"),
        ({"id": 5}, "class 2, id: got 5; ids count from 0, in order"),
        ({"color": [1, 2, 3]}, r"class 2, color: got \[1, 2, 3\]; extra inputs are not permitted"),
        ({"name": "class 0"}, "classes 0 and 2 would both be named 'class 0'"),
    ],
)
def test_a_file_that_was_edited_wrongly(tmp_path: Path, edit: dict[str, object], message: str) -> None:
    entries = old_file()
    entries[2] |= edit
    path = written(tmp_path / "classes.json", entries)
    with pytest.raises(ClassesError, match=f"classes.json: {message}"):
        Classes.read(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[{", "invalid JSON"),
        ('{"id": 0}', "input should be a valid array"),
        ('[{"id": 0, "colour": [1, 2, 3]}]', "class 0, name: field required"),
        ("[3]", "class 0: got 3; input should be an object"),
    ],
)
def test_a_file_that_holds_no_classes(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "classes.json").write_text(content)
    with pytest.raises(ClassesError, match=f"classes.json: .*{message}"):
        Classes.read(tmp_path / "classes.json")


def test_a_file_that_is_missing_or_of_another_run(tmp_path: Path) -> None:
    with pytest.raises(ClassesError, match=r"classes.json: cannot be read: No such file"):
        Classes.read(tmp_path / "classes.json")
    with pytest.raises(ClassesError, match="holds 4 classes, the run has 6 clusters"):
        Classes.read(written(tmp_path / "classes.json", old_file()), 6)
