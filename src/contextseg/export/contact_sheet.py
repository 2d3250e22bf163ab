"""One picture that shows images beside their masks, so that a result can be judged at a glance.

Shape suffixes: H, W height and width of one picture in pixels.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from contextseg.errors import DataError
from contextseg.export.indexed_png import save_png

MARGIN_PX = 10
"""Space around every cell."""
TITLE_PX = 24
"""Height of the line of titles."""
_BACKGROUND = (246, 246, 246)
_INK = (32, 32, 32)
_FONT_SIZES_PX = range(16, 7, -1)


def contact_sheet(
    rows: Sequence[Sequence[npt.NDArray[np.uint8]]],
    column_titles: Sequence[str],
    path: Path,
    cell_px: int = 240,
) -> None:
    """Write a sheet of pictures as one PNG, such as image | clusters | truth.

    Every picture is scaled to fit its cell with its aspect kept. Cells are `cell_px` wide; a row is as high
    as its highest picture, at most `cell_px`. Column x starts at `MARGIN_PX + x * (cell_px + MARGIN_PX)` px,
    the first row at `MARGIN_PX + TITLE_PX` px.

    Args:
        rows: for each row one (H, W, 3) uint8 RGB array per title; sizes may differ.
        column_titles: what the columns show, written above them.
        path: the PNG to write; its folder is made if need be.
        cell_px: width and greatest height of a cell, >= 16.

    Raises:
        DataError: there is nothing to show, a row does not fit the titles, or a picture is not RGB uint8.
        OSError: the file cannot be written.
    """
    if not rows or not column_titles:
        raise DataError(
            "a contact sheet needs at least one row and one column; "
            f"got {len(rows)} rows and {len(column_titles)} columns"
        )
    if cell_px < 16:
        raise DataError(f"cell_px must be at least 16, such as 240; got {cell_px}")
    for index, row in enumerate(rows):
        _check_row(index, row, len(column_titles))

    cells = [[_fit(picture, cell_px) for picture in row] for row in rows]
    heights = [max(cell.height for cell in row) for row in cells]
    pitch = cell_px + MARGIN_PX
    width = MARGIN_PX + len(column_titles) * pitch
    height = MARGIN_PX + TITLE_PX + sum(row_height + MARGIN_PX for row_height in heights)
    sheet = Image.new("RGB", (width, height), _BACKGROUND)

    draw, font = ImageDraw.Draw(sheet), _font(column_titles, cell_px)
    for x, title in enumerate(column_titles):
        centre = (MARGIN_PX + x * pitch + cell_px / 2, MARGIN_PX + TITLE_PX / 2 - 2)
        draw.text(centre, title, fill=_INK, font=font, anchor="mm")
    top = MARGIN_PX + TITLE_PX
    for row_cells, row_height in zip(cells, heights, strict=True):
        for x, cell in enumerate(row_cells):
            left = MARGIN_PX + x * pitch + (cell_px - cell.width) // 2
            sheet.paste(cell, (left, top + (row_height - cell.height) // 2))
        top += row_height + MARGIN_PX
    save_png(path, sheet)


def _check_row(index: int, row: Sequence[npt.NDArray[np.uint8]], n_columns: int) -> None:
    if len(row) != n_columns:
        raise DataError(f"row {index} has {len(row)} pictures for {n_columns} column titles")
    for x, picture in enumerate(row):
        if picture.ndim != 3 or picture.shape[2] != 3 or picture.size == 0 or picture.dtype != np.uint8:
            raise DataError(
                f"row {index}, column {x}: expected an (H, W, 3) uint8 RGB array; "
                f"got {picture.shape} {picture.dtype}; `colourise` makes one of a mask"
            )


def _fit(picture_HW3: npt.NDArray[np.uint8], cell_px: int) -> Image.Image:
    height, width = picture_HW3.shape[:2]
    scale = cell_px / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    # Box: a mean of pixels when it shrinks, plain repetition when it enlarges, so no ringing at mask borders.
    return Image.fromarray(picture_HW3).resize(size, Image.Resampling.BOX)


def _font(titles: Sequence[str], width_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return the largest font in which every title fits over its column."""
    for size in _FONT_SIZES_PX:
        font = ImageFont.load_default(size=size)
        if max(font.getlength(title) for title in titles) <= width_px:
            break
    return font
