import pytest
import torch

from contextseg.tiling import Tiling


def test_tiles_cover_a_side_and_overlap():
    assert Tiling(96, 32).spans(256) == [(0, 96), (64, 160), (128, 224), (160, 256)]
    assert Tiling(96, 32).spans(96) == [(0, 96)]
    assert Tiling(96, 32).spans(64) == [(0, 64)]


def test_tiles_fade_into_each_other():
    # An overlap of 32 px is 8 cells: 1/8, 2/8, ... 8/8, flat, and down again.
    rise = [(i / 8) ** 3 for i in range(1, 9)]
    side = torch.tensor(rise + [1.0] * 8 + rise[::-1])
    assert torch.equal(Tiling(96, 32).weights(96, 96), side.outer(side))
    assert torch.equal(Tiling(96, 32).weights(96, 64)[8:16, 3:], torch.tensor(rise[3:] + rise[::-1]).expand(8, -1))
    assert torch.equal(Tiling(96, 0).weights(32, 64), torch.ones(8, 16))


@pytest.mark.parametrize(("tile_px", "overlap_px"), [(100, 32), (96, 20), (64, 64), (96, -32)])
def test_tiles_that_do_not_fit_the_grid(tile_px, overlap_px):
    with pytest.raises(ValueError, match=f"tile_px={tile_px} and overlap_px={overlap_px} must be multiples of 32"):
        Tiling(tile_px, overlap_px)


@pytest.mark.parametrize(
    ("rows", "columns", "n_rows", "n_columns", "step"),
    [(1, 1, 1, 1, 1), (1, 30, 1, 16, 4), (30, 1, 16, 1, 4), (3, 5, 3, 5, 4), (9, 9, 4, 4, 4), (2, 2, 2, 2, 2)],
)
def test_a_few_tiles_stand_for_all(rows, columns, n_rows, n_columns, step):
    tiling = Tiling(1024, 128)
    spans = [tiling.spans(1024 + 896 * (count - 1)) for count in (rows, columns)]
    assert [len(side) for side in spans] == [rows, columns]
    found = tiling.stand_ins(*spans, (spans[0][-1][1], spans[1][-1][1]))
    assert len({box[:2] for box, _ in found}) == n_rows
    assert len({box[2:] for box, _ in found}) == n_columns
    assert len(found) == n_rows * n_columns
    for _, stand_hw in found:
        for side in (0, 1):
            assert set(torch.nonzero(stand_hw.any(side))[:, 0].diff().tolist()) == {step}


def test_cells_of_an_overlap_stand_in_for_one_tile_alone():
    tiling = Tiling(96, 32)
    spans = tiling.spans(224)
    found = tiling.stand_ins([(0, 32)], spans, (32, 224))
    cells = [
        left // 4 + cell for (*_, left, _), own_hw in found for cell in torch.nonzero(own_hw.any(0))[:, 0].tolist()
    ]
    assert all((own_hw == own_hw.any(0)).all() for _, own_hw in found)
    assert cells == list(range(56))
