import json
from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, jaccard_score, recall_score

from contextseg.errors import DataError
from contextseg.evaluation.boundaries import BoundaryCounts
from contextseg.evaluation.counts import ConfusionCounts
from contextseg.evaluation.scores import read_scores, score


@st.composite
def count_matrices(draw):
    n_clusters, n_classes = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    row = st.lists(st.integers(0, draw(st.sampled_from([2, 30]))), min_size=n_classes, max_size=n_classes)
    matrix = np.array(draw(st.lists(row, min_size=n_clusters, max_size=n_clusters)))
    matrix[draw(st.integers(0, n_clusters - 1)), draw(st.integers(0, n_classes - 1))] += 1
    return matrix


def pixels_of(matrix):
    """Every pixel by itself: (cluster, label)."""
    return [pair for pair, n in np.ndenumerate(matrix) for _ in range(n)]


def slow_figures(pixels, class_of, classes):
    """Accuracy and mean IoU of (cluster, label) pixels, by sets of pixels; a class of -1 is never right."""
    ious = []
    for c in classes:
        predicted = {i for i, (k, _) in enumerate(pixels) if class_of[k] == c}
        true = {i for i, (_, label) in enumerate(pixels) if label == c}
        if predicted | true:
            ious.append(len(predicted & true) / len(predicted | true))
    if not pixels:
        return None, None
    return sum(class_of[k] == label for k, label in pixels) / len(pixels), sum(ious) / len(ious)


def one_to_one(n_clusters, n_classes):
    """Every one-to-one matching that leaves no cluster and no class alone needlessly."""
    classes = [*range(n_classes), *[-1] * max(0, n_clusters - n_classes)]
    return set(permutations(classes, n_clusters))


def is_one_of(figures, expected):
    """Several matchings may be best: then the mean IoU is that of any of them."""
    return any(figures == pytest.approx(one) for one in expected)


@settings(max_examples=100, deadline=None)
@given(count_matrices())
def test_accuracy_and_miou_are_the_best_of_all_matchings(matrix):
    names, pixels = [f"class {c}" for c in range(matrix.shape[1])], pixels_of(matrix)
    scores = score(matrix, names)
    found = [slow_figures(pixels, class_of, range(len(names))) for class_of in one_to_one(*matrix.shape)]
    best = max(accuracy for accuracy, _ in found)
    assert is_one_of((scores.accuracy, scores.miou), [one for one in found if one[0] == pytest.approx(best)])


@settings(max_examples=60, deadline=None)
@given(count_matrices())
def test_many_to_one_is_the_best_of_all_classes_of_the_clusters(matrix):
    names, pixels = [f"class {c}" for c in range(matrix.shape[1])], pixels_of(matrix)
    scores = score(matrix, names)
    mappings = product(range(len(names)), repeat=len(matrix))
    n_right = {mapping: sum(mapping[k] == label for k, label in pixels) for mapping in mappings}
    best = [mapping for mapping, n in n_right.items() if n == max(n_right.values())]
    # an empty cluster may stand for any class, and of equal counts either: only two of many are tried
    expected = [slow_figures(pixels, mapping, range(len(names))) for mapping in [*best[:20], *best[-20:]]]
    assert scores.accuracy_many_to_one == pytest.approx(expected[0][0])
    assert scores.accuracy_many_to_one >= scores.accuracy
    assert is_one_of((scores.accuracy_many_to_one, scores.miou_many_to_one), expected)


@settings(max_examples=100, deadline=None)
@given(count_matrices(), st.sets(st.integers(0, 4)))
def test_a_group_is_scored_on_the_pixels_that_are_in_it_on_both_sides(matrix, things):
    names = [f"class {c}" for c in range(matrix.shape[1])]
    things = sorted(c for c in things if c < len(names))
    stuff = [c for c in range(len(names)) if c not in things]
    scores = score(matrix, names, groups={"things": things, "stuff": stuff})
    class_of = scores.cluster_to_class.tolist()
    for group, ids in (("things", things), ("stuff", stuff)):
        within = [(k, label) for k, label in pixels_of(matrix) if label in ids and class_of[k] in (*ids, -1)]
        found = [scores.submatrices[f"{figure}_{group}_submatrix"] for figure in ("accuracy", "miou")]
        assert found == pytest.approx(list(slow_figures(within, class_of, ids)))


def test_things_and_stuff_by_hand():
    # cluster k is matched to class k: 6 + 5 + 7; cluster 3 is surplus
    matrix = np.array([[6, 1, 2], [3, 5, 0], [4, 0, 7], [1, 0, 2]])
    scores = score(matrix, ["dog", "cat", "sky"], groups={"things": (0, 1), "stuff": (2,)})
    assert scores.cluster_to_class.tolist() == [0, 1, 2, -1]
    # things: rows and columns 0 and 1, and the surplus pixel of dog: 11 of 6 + 1 + 3 + 5 + 1 = 16
    assert scores.submatrices["accuracy_things_submatrix"] == pytest.approx(11 / 16)
    # dog: 6 / (7 + 10 - 6); cat: 5 / (8 + 6 - 5). The 4 dog pixels that were taken for sky are not seen here.
    assert scores.submatrices["miou_things_submatrix"] == pytest.approx((6 / 11 + 5 / 9) / 2)
    assert scores.submatrices["miou_stuff_submatrix"] == pytest.approx(7 / 9)  # 2 surplus pixels of sky are missed
    assert list(scores.to_dict())[4:8] == [
        *("accuracy_things_submatrix", "miou_things_submatrix"),
        *("accuracy_stuff_submatrix", "miou_stuff_submatrix"),
    ]


def test_many_to_one_by_hand():
    # clusters 0 and 1 are a, 2 is b: 4 + 3 + 5 of 15. One-to-one, cluster 1 is surplus: 4 + 5.
    scores = score(np.array([[4, 1], [3, 2], [0, 5]]), ["a", "b"])
    assert (scores.accuracy, scores.accuracy_many_to_one) == pytest.approx((9 / 15, 12 / 15))
    # a: 7 / (10 + 7 - 7), b: 5 / (5 + 8 - 5)
    assert scores.miou_many_to_one == pytest.approx((7 / 10 + 5 / 8) / 2)


def test_rows_that_are_classes_are_not_matched():
    matrix = np.array([[1, 6], [8, 2]])
    scores = score(matrix, ["a", "b"], matching="identity")
    assert scores.accuracy == pytest.approx(3 / 17)  # 14 / 17 if they were
    assert scores.accuracy_many_to_one is None
    assert scores.miou_many_to_one is None


def test_by_hand_with_as_many_clusters_as_classes():
    # rows are clusters; the best matching is 0->sea (6), 1->sky (8), 2->sand (3): 17 of 24 pixels
    scores = score(np.array([[1, 6, 0], [8, 2, 1], [0, 3, 3]]), ["sky", "sea", "sand"], n_images=2)
    assert scores.cluster_to_class.tolist() == [1, 0, 2]
    assert scores.accuracy == pytest.approx(17 / 24)
    # sky:  TP 8, truth 1+8 = 9,    predicted 8+2+1 = 11 -> IoU 8 / (9+11-8) = 8/12; recall 8/9
    # sea:  TP 6, truth 6+2+3 = 11, predicted 1+6 = 7    -> IoU 6 / (11+7-6) = 6/12; recall 6/11
    # sand: TP 3, truth 1+3 = 4,    predicted 3+3 = 6    -> IoU 3 / (4+6-3)  = 3/7;  recall 3/4
    assert scores.per_class["sky"] == pytest.approx({"iou": 8 / 12, "recall": 8 / 9, "n_pixels": 9})
    assert scores.per_class["sea"] == pytest.approx({"iou": 6 / 12, "recall": 6 / 11, "n_pixels": 11})
    assert scores.per_class["sand"] == pytest.approx({"iou": 3 / 7, "recall": 3 / 4, "n_pixels": 4})
    assert scores.miou == pytest.approx((8 / 12 + 6 / 12 + 3 / 7) / 3)


def test_pixels_of_surplus_clusters_are_wrong():
    # cluster 1 is surplus: its 2 + 4 pixels stay in the denominators
    scores = score(np.array([[10, 0], [2, 4], [0, 8]]), ["a", "b"])
    assert scores.cluster_to_class.tolist() == [0, -1, 1]
    assert scores.accuracy == pytest.approx(18 / 24)  # 1.0 if they were dropped
    assert scores.per_class["a"]["iou"] == pytest.approx(10 / 12)  # 10 / 10 if they were dropped
    assert scores.per_class["b"]["recall"] == pytest.approx(8 / 12)
    assert scores.miou == pytest.approx((10 / 12 + 8 / 12) / 2)


def test_a_class_without_a_cluster_scores_0():
    # one cluster, matched to b (5 of 9): a's IoU is 0 and counts in the mean; b's is 5 / (5 + 9 - 5)
    scores = score(np.array([[4, 5]]), ["a", "b"])
    assert scores.per_class["a"] == {"iou": 0.0, "recall": 0.0, "n_pixels": 4}
    assert scores.miou == pytest.approx((0 + 5 / 9) / 2)
    assert scores.accuracy == pytest.approx(5 / 9)


def test_an_absent_class_counts_only_if_it_was_predicted():
    names = ["a", "b", "absent"]
    # cluster 2 holds 3 pixels of b and is left with `absent`: IoU 0 / 3, in the mean
    predicted = score(np.array([[4, 0, 0], [0, 5, 0], [0, 3, 0]]), names)
    assert predicted.cluster_to_class.tolist() == [0, 1, 2]
    assert predicted.per_class["absent"] == {"iou": 0.0, "recall": None, "n_pixels": 0}
    assert predicted.miou == pytest.approx((1 + 5 / 8 + 0) / 3)
    # cluster 2 is empty: 0/0, not in the mean
    empty = score(np.array([[4, 0, 0], [0, 5, 0], [0, 0, 0]]), names)
    assert empty.per_class["absent"] == {"iou": None, "recall": None, "n_pixels": 0}
    assert empty.miou == pytest.approx(1)


@pytest.mark.parametrize(("n_clusters", "n_classes"), [(5, 5), (8, 5), (3, 5)])
def test_agrees_with_scikit_learn_on_the_matched_pixels(n_clusters, n_classes):
    rng = np.random.default_rng(n_clusters)
    counts = ConfusionCounts(n_clusters, n_classes)
    truth, predicted = [], []
    for shape in ((13, 21), (9, 17), (24, 6)):
        labels = rng.integers(0, n_classes, shape)
        clusters = np.where(rng.random(shape) < 0.5, labels % n_clusters, rng.integers(0, n_clusters, shape))
        labels[rng.random(shape) < 0.1] = 255
        counts.update(clusters, labels)
        truth.append(labels[labels != 255])
        predicted.append(clusters[labels != 255])
    names = [f"class {c}" for c in range(n_classes)]
    scores = score(counts.matrix_, names)

    truth_N = np.concatenate(truth)
    class_of_N = scores.cluster_to_class[np.concatenate(predicted)]  # -1 for surplus: an answer that is never right
    classes = np.arange(n_classes)
    ious = jaccard_score(truth_N, class_of_N, labels=classes, average=None)
    recalls = recall_score(truth_N, class_of_N, labels=classes, average=None)
    assert [scores.per_class[name]["iou"] for name in names] == pytest.approx(ious.tolist())
    assert [scores.per_class[name]["recall"] for name in names] == pytest.approx(recalls.tolist())
    assert scores.miou == pytest.approx(ious.mean())
    assert scores.accuracy == pytest.approx(accuracy_score(truth_N, class_of_N))


def test_the_mean_is_over_classes_of_the_whole_set_not_over_images():
    counts = ConfusionCounts(2, 2)
    counts.update(np.array([[0, 0, 0, 0]]), np.array([[0, 0, 0, 1]]))
    counts.update(np.array([[1, 1], [1, 1]]), np.array([[1, 1], [1, 1]]))
    # a: 3 / (4 + 3 - 3), b: 4 / (4 + 5 - 4). By image: (3/4 + 0) / 2 = .375 and 1, whose mean is .6875.
    assert score(counts.matrix_, ["a", "b"]).miou == pytest.approx((3 / 4 + 4 / 5) / 2)


def test_a_large_set_loses_no_pixel():
    scores = score(np.array([[2**40, 1], [0, 2**40]]), ["a", "b"])
    assert scores.per_class["b"]["n_pixels"] == 2**40 + 1
    assert scores.accuracy == 2**41 / (2**41 + 1)


def test_scores_do_not_follow_later_changes_of_the_counts():
    matrix = np.array([[3, 1], [0, 4]])
    scores = score(matrix, ["a", "b"])
    matrix[0, 0] = 99
    assert scores.matrix[0, 0] == 3
    with pytest.raises(ValueError, match="read-only"):
        scores.matrix[0, 0] = 1


@pytest.mark.parametrize(
    ("matrix", "names", "message"),
    [
        (np.array([[1, 2]]), ["a"], r"expected 2 different class names.*got \['a'\]"),
        (np.array([[1, 2]]), ["a", "a"], "expected 2 different class names"),
        (np.zeros((2, 2), int), ["a", "b"], "no labelled pixel was counted"),
        (np.zeros((2, 2)), ["a", "b"], "counts must be integers"),
    ],
)
def test_what_cannot_be_scored(matrix, names, message):
    with pytest.raises(DataError, match=message):
        score(matrix, names)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"groups": {"things": [0, 2]}}, r"group 'things': expected different class ids in 0\.\.1; got \[0, 2\]"),
        ({"groups": {"things": [1, 1]}}, "group 'things'"),
        ({"boundaries": BoundaryCounts(3, 2)}, r"counted for \(3, 2\) .*, pixels for \(2, 2\)"),
    ],
)
def test_what_does_not_fit_the_matrix(options, message):
    with pytest.raises(DataError, match=message):
        score(np.ones((2, 2), int), ["a", "b"], **options)


def test_boundaries_are_scored_by_the_same_matching():
    # two stripes, the boundary between them 3 pixels off: cluster 1 is class a, cluster 0 is class b
    clusters, labels = np.repeat([[1, 0]], [7, 5], axis=1), np.repeat([[0, 1]], [4, 8], axis=1)
    for tolerance_px, f in ((2.9, 0.0), (3.1, 1.0)):
        counts, boundaries = ConfusionCounts(2, 2), BoundaryCounts(2, 2, tolerance_px / np.hypot(1, 12))
        for each in (counts, boundaries):
            each.update(clusters, labels)
        scores = score(counts.matrix_, ["a", "b"], boundaries=boundaries)
        assert scores.cluster_to_class.tolist() == [1, 0]
        assert scores.boundary_f == scores.per_class["a"]["boundary_f"] == f
        boundaries.update(clusters, labels)
        assert scores.boundaries.true_C.tolist() == [1, 1]  # as it was when it was scored


def example_scores():
    context = {"method": "context", "seed": 3, "resolution_px": [320, 240]}
    boundaries = BoundaryCounts.from_dict(
        {
            "tolerance": 0.01,
            "predicted": [5, 4, 3, 0],
            "true": [6, 2, 0],
            "predicted_near": [[4, 1, 0], [2, 3, 0], [0, 3, 0], [0, 0, 0]],
            "true_near": [[5, 1, 0], [0, 2, 0], [0, 0, 0], [0, 0, 0]],
        }
    )
    return score(
        np.array([[7, 1, 0], [2, 5, 0], [1, 2, 0], [0, 0, 0]]),
        ["b", "a", "c"],
        groups={"things": (0, 2), "stuff": (1,)},
        boundaries=boundaries,
        n_images=4,
        context=context,
    )


def read_back(folder, stored):
    path = folder / "scores.json"
    path.write_text(json.dumps(stored), encoding="utf-8")
    return read_scores(path)


def test_figures_of_the_example():
    scores = example_scores()
    # b: precision 4/5, recall 5/6; a: 3/4 and 2/2; c: cluster 2 or 3, without a true pixel
    f_b, f_a = 2 * (4 / 5) * (5 / 6) / (4 / 5 + 5 / 6), 2 * (3 / 4) / (3 / 4 + 1)
    assert scores.per_class["b"]["boundary_f"] == pytest.approx(f_b)
    assert scores.per_class["a"]["boundary_f"] == pytest.approx(f_a)
    f_c = scores.per_class["c"]["boundary_f"]
    assert f_c in (0, None)
    assert scores.boundary_f == pytest.approx((f_b + f_a) / (2 if f_c is None else 3))


def test_a_file_reads_back_as_it_was_written(tmp_path):
    path = tmp_path / "run" / "scores.json"
    scores = example_scores()
    scores.write(path)
    assert [file.name for file in path.parent.iterdir()] == ["scores.json"]
    stored = json.loads(path.read_text(encoding="utf-8"))
    assert set(stored) == {
        *("accuracy", "miou", "accuracy_many_to_one", "miou_many_to_one", "boundary_f"),
        *("accuracy_things_submatrix", "miou_things_submatrix", "accuracy_stuff_submatrix", "miou_stuff_submatrix"),
        *("per_class", "cluster_to_class", "matrix", "matching", "groups", "boundaries"),
        *("n_clusters", "n_classes", "n_images", "context"),
    }
    assert (stored["n_clusters"], stored["n_classes"], stored["n_images"]) == (4, 3, 4)
    again = read_scores(path)
    assert again.to_dict() == scores.to_dict() == stored
    assert list(again.per_class) == ["b", "a", "c"]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("accuracy", 0.9, "`accuracy` does not follow from the stored matrix"),
        ("miou", None, "`miou` does not follow"),
        ("n_clusters", 3, "`n_clusters` does not follow"),
        ("matrix", [[7, 1, 0], [2, 5, 0], [1, 3, 0], [0, 0, 0]], "`accuracy` does not follow"),
        ("matrix", [[0.5, 1.0, 2.0]], "counts must be integers"),
        ("matrix", [[1, 2, 3], [1]], "cannot read the scores"),
        ("cluster_to_class", [1, 0, 2, -1], "not a best one-to-one matching"),
        ("cluster_to_class", [0, 0, 1, -1], "not a best one-to-one matching"),
        ("cluster_to_class", [0, 1, -1], "not a best one-to-one matching"),
        ("cluster_to_class", [0, 1, 3, -1], "not a best one-to-one matching"),
        ("context", None, "cannot read the scores"),
        ("matching", "identity", "not a best identity matching|a row for each class"),
        ("matching", "greedy", "not a best greedy matching"),
        ("accuracy_many_to_one", 0.9, "`accuracy_many_to_one` does not follow"),
        ("miou_things_submatrix", 0.9, "`miou_things_submatrix` does not follow"),
        ("groups", {"things": [1], "stuff": [0]}, "`accuracy_things_submatrix` does not follow"),
        ("groups", {"things": [0, 3]}, "group 'things'"),
        ("groups", 3, "cannot read the scores"),
        ("boundary_f", 0.9, "`boundary_f` does not follow"),
        ("boundaries", None, "`boundary_f` does not follow"),
        ("boundaries", {"tolerance": 0.1}, "the key 'predicted' is missing"),
        ("miou_of_my_own", 0.9, "`miou_of_my_own` does not follow"),
    ],
)
def test_a_changed_file_is_refused(tmp_path, key, value, message):
    with pytest.raises(DataError, match=message):
        read_back(tmp_path, {**example_scores().to_dict(), key: value})


def test_a_changed_class_score_is_refused(tmp_path):
    stored = example_scores().to_dict()
    stored["per_class"]["a"]["iou"] += 0.01
    with pytest.raises(DataError, match="`per_class` does not follow"):
        read_back(tmp_path, stored)


def test_a_file_of_an_earlier_version_is_completed(tmp_path):
    stored = score(np.array([[7, 1], [2, 5], [1, 2]]), ["b", "a"]).to_dict()
    for key in ("accuracy_many_to_one", "miou_many_to_one", "boundary_f", "matching", "groups", "boundaries"):
        del stored[key]
    scores = read_back(tmp_path, stored)
    assert (scores.accuracy, scores.accuracy_many_to_one) == pytest.approx((12 / 18, 14 / 18))
    assert scores.boundary_f is None


def test_scores_of_a_probe_read_back(tmp_path):
    path = tmp_path / "scores.json"
    for matrix in ([[1, 6], [8, 2]], [[3, 3], [3, 3]]):  # in the second, others would match as many pixels
        scores = score(np.array(matrix), ["a", "b"], matching="identity")
        scores.write(path)
        assert read_scores(path).to_dict() == scores.to_dict()
        with pytest.raises(DataError, match="not a best identity matching"):
            read_back(tmp_path, {**scores.to_dict(), "cluster_to_class": [1, 0]})


def test_another_best_matching_is_accepted(tmp_path):
    # Both clusters look alike, so either may be the surplus one; a file of another SciPy version is as good.
    stored = score(np.array([[5], [5]]), ["a"]).to_dict()
    stored["cluster_to_class"].reverse()
    assert read_back(tmp_path, stored).cluster_to_class.tolist() == stored["cluster_to_class"]


def test_a_file_that_is_missing_or_not_ours(tmp_path):
    with pytest.raises(DataError, match=r"scores\.json: cannot read the scores"):
        read_scores(tmp_path / "scores.json")
    (tmp_path / "half.json").write_text('{"accuracy": 0.', encoding="utf-8")
    with pytest.raises(DataError, match=r"half\.json: cannot read the scores"):
        read_scores(tmp_path / "half.json")
    (tmp_path / "other.json").write_text("{}", encoding="utf-8")
    with pytest.raises(DataError, match="not a scores file: the key 'matrix' is missing"):
        read_scores(tmp_path / "other.json")


@pytest.mark.parametrize("value", [float("nan"), object()])
def test_a_context_that_json_cannot_hold_leaves_the_old_file_alone(tmp_path, value):
    path = tmp_path / "scores.json"
    example_scores().write(path)
    before = path.read_bytes()
    with pytest.raises(DataError, match="context of the scores must be JSON values"):
        score(np.array([[1]]), ["a"], context={"loss": value}).write(path)
    assert path.read_bytes() == before
