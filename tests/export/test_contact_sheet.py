import numpy as np
import pytest
from PIL import Image

from contextseg.errors import DataError
from contextseg.export.contact_sheet import MARGIN_PX, TITLE_PX, contact_sheet

RED, GREEN, BLUE, BLACK = (255, 0, 0), (0, 160, 0), (0, 0, 255), (0, 0, 0)


def plain(colour, height, width):
    return np.full((height, width, 3), colour, np.uint8)


def read(path):
    with Image.open(path) as image:
        return np.array(image.convert("RGB"))


def test_pictures_land_in_their_cells(tmp_path):
    path = tmp_path / "deep" / "sheet.png"
    # Row 0: a 2:1 landscape and a 1:4 portrait. Row 1: two landscapes, 80 x 40 and 80 x 20 px in their cells.
    rows = [[plain(RED, 100, 200), plain(GREEN, 40, 10)], [plain(BLUE, 300, 600), plain(BLACK, 5, 20)]]
    contact_sheet(rows, ["image", "clusters"], path, cell_px=80)
    sheet = read(path)

    first, second = MARGIN_PX, MARGIN_PX + 80 + MARGIN_PX  # left edges of the columns
    top, low = MARGIN_PX + TITLE_PX, MARGIN_PX + TITLE_PX + 80 + MARGIN_PX  # top edges of the rows
    assert sheet.shape == (low + 40 + MARGIN_PX, second + 80 + MARGIN_PX, 3)  # row 1 is 40 px high, not 80

    background = sheet[0, 0].tolist()
    expected = np.full(sheet.shape, background, np.uint8)
    expected[top + 20 : top + 60, first : first + 80] = RED
    expected[top : top + 80, second + 30 : second + 50] = GREEN
    expected[low : low + 40, first : first + 80] = BLUE
    expected[low + 10 : low + 30, second : second + 80] = BLACK
    np.testing.assert_array_equal(sheet[top:], expected[top:])
    assert [file.name for file in path.parent.iterdir()] == ["sheet.png"]


def test_titles_are_written_above_their_columns(tmp_path):
    rows = [[plain(RED, 4, 4)] * 3]
    contact_sheet(rows, ["image", "", "a title far too long for its cell"], tmp_path / "sheet.png", cell_px=200)
    titles = read(tmp_path / "sheet.png")[: MARGIN_PX + TITLE_PX]
    inked = (titles != titles[0, 0]).any(axis=(0, 2))
    cells = [inked[MARGIN_PX + x * 210 :][:200] for x in range(3)]
    assert [bool(cell.any()) for cell in cells] == [True, False, True]
    assert inked.sum() == sum(cell.sum() for cell in cells)  # none in the margins
    where = np.flatnonzero(cells[0])
    assert abs((where[0] + where[-1]) / 2 - 100) < 3  # centred


def test_titles_shrink_only_when_one_does_not_fit(tmp_path):
    heights = []
    for titles in (["image", "truth"], ["image", "a title too long for 120 px"]):
        contact_sheet([[plain(RED, 4, 4)] * 2], titles, tmp_path / "sheet.png", cell_px=120)
        cell = read(tmp_path / "sheet.png")[: MARGIN_PX + TITLE_PX, : MARGIN_PX + 120]
        heights.append((cell != cell[0, 0]).any(axis=(1, 2)).sum())
    assert heights[0] > heights[1]


def test_mask_colours_are_kept_when_a_small_picture_is_enlarged(tmp_path):
    picture = np.array([[RED, GREEN, BLUE, BLACK], [BLACK, BLUE, GREEN, RED]], np.uint8)
    contact_sheet([[picture]], ["mask"], tmp_path / "sheet.png", cell_px=40)
    cell = read(tmp_path / "sheet.png")[MARGIN_PX + TITLE_PX :][:20, MARGIN_PX:][:, :40]
    np.testing.assert_array_equal(cell, picture.repeat(10, axis=0).repeat(10, axis=1))


@pytest.mark.parametrize(
    ("rows", "titles", "message"),
    [
        ([], ["image"], "got 0 rows and 1 columns"),
        ([[]], [], "got 1 rows and 0 columns"),
        ([[plain(RED, 2, 3)], []], ["image"], "row 1 has 0 pictures for 1 column titles"),
        ([[np.zeros((2, 3), np.uint8)]], ["mask"], r"row 0, column 0: .*got \(2, 3\) uint8; `colourise`"),
        ([[np.zeros((2, 3, 3))]], ["image"], r"got \(2, 3, 3\) float64"),
    ],
)
def test_what_cannot_be_shown(tmp_path, rows, titles, message):
    with pytest.raises(DataError, match=message):
        contact_sheet(rows, titles, tmp_path / "sheet.png")
    assert list(tmp_path.iterdir()) == []


def test_cells_that_are_too_small(tmp_path):
    with pytest.raises(DataError, match="cell_px must be at least 16, such as 240; got 8"):
        contact_sheet([[plain(RED, 2, 3)]], ["image"], tmp_path / "sheet.png", cell_px=8)
