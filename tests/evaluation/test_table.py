from io import StringIO

import numpy as np
from rich.console import Console

from contextseg.evaluation.boundaries import BoundaryCounts
from contextseg.evaluation.scores import score
from contextseg.evaluation.table import scores_table


def cells(table):
    return [[str(cell) for cell in row] for row in zip(*(column.cells for column in table.columns), strict=True)]


def headers(table):
    return [column.header for column in table.columns]


def test_percents_by_hand():
    # 0->sky (3), 1->sea (4); cluster 2 is surplus with 2 of 10 pixels
    table = scores_table(score(np.array([[3, 1], [0, 4], [2, 0]]), ["sky", "sea"]))
    assert headers(table) == ["class", "cluster", "IoU %", "accuracy %", "pixels %"]
    assert [column.justify for column in table.columns] == ["left", "right", "right", "right", "right"]
    assert cells(table) == [
        ["sky", "0", "50.0", "60.0", "50.0"],  # 3 / (4 + 5 - 3); 3 / 5; 5 / 10
        ["sea", "1", "80.0", "80.0", "50.0"],  # 4 / (4 + 5 - 4); 4 / 5
        ["mean IoU", "", "65.0", "", ""],
        ["accuracy", "", "", "70.0", ""],
        ["many-to-one", "", "81.7", "90.0", ""],  # cluster 2 is sky too: (5 / 6 + 4 / 5) / 2; 9 / 10
    ]
    assert table.caption == "surplus clusters: 1, with 20.0 % of the pixels, counted as wrong"


def test_groups_many_to_one_and_boundaries_have_rows_of_their_own():
    boundaries = BoundaryCounts(3, 2)
    boundaries.update(np.array([[0, 0, 1, 1]]), np.array([[0, 0, 1, 1]]))
    matrix = np.array([[3, 1], [0, 4], [2, 0]])
    scores = score(matrix, ["dog", "sea"], groups={"things": (0,), "stuff": (1,)}, boundaries=boundaries)
    assert headers(scores_table(scores))[-1] == "boundary F %"
    assert cells(scores_table(scores)) == [
        ["dog", "0", "50.0", "60.0", "50.0", "100.0"],
        ["sea", "1", "80.0", "80.0", "50.0", "100.0"],
        ["mean IoU", "", "65.0", "", "", ""],
        ["mean boundary F", "", "", "", "", "100.0"],
        ["accuracy", "", "", "70.0", "", ""],
        ["things, sub-matrix", "", "60.0", "60.0", "", ""],  # 3 of dog, 2 of it surplus
        ["stuff, sub-matrix", "", "100.0", "100.0", "", ""],
        ["many-to-one", "", "81.7", "90.0", "", ""],  # (5 / 6 + 4 / 5) / 2; 9 / 10
    ]


def test_the_caption_tells_the_options():
    context = {"flip": True, "refine": None, "probe": {"kind": "linear", "labels_read": "[red]train"}, "seed": 3}
    table = scores_table(score(np.array([[3]]), ["sky"], context=context))
    console = Console(width=100, file=StringIO())
    console.print(table.caption)
    assert console.file.getvalue().splitlines() == ["probe: kind linear, labels_read [red]train", "flip: on"]


def test_a_dash_where_there_is_nothing_to_score():
    table = scores_table(score(np.array([[3, 1, 0]]), ["sky", "sea", "sand"]))
    assert cells(table)[:3] == [
        ["sky", "0", "75.0", "100.0", "75.0"],
        ["sea", "–", "0.0", "0.0", "25.0"],
        ["sand", "–", "–", "–", "0.0"],
    ]
    assert table.caption is None


def test_as_many_clusters_as_classes_have_no_row_of_many_to_one():
    table = scores_table(score(np.array([[3, 1], [0, 4]]), ["sky", "sea"]))
    assert [row[0] for row in cells(table)] == ["sky", "sea", "mean IoU", "accuracy"]


def test_a_class_name_is_never_read_as_markup():
    console = Console(width=100, file=StringIO())
    console.print(scores_table(score(np.array([[3]]), ["[red]roof[/red]"])))
    assert "[red]roof[/red]" in console.file.getvalue()
