import io
import tarfile

import pytest
from damage import damaged_file, inputs, used_or_refused
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from contextseg.data.image_files import list_images
from contextseg.data.images import read_image


def tar_of_images(format: int) -> bytes:
    whole, image = io.BytesIO(), io.BytesIO()
    Image.new("RGB", (18, 22), "teal").save(image, "PNG")
    with tarfile.open(fileobj=whole, mode="w", format=format) as file:
        for name in ("a.png", "ümlaut/b.png", f"{'long/' * 40}c.png"):
            member = tarfile.TarInfo(name)
            member.size = len(image.getvalue())
            file.addfile(member, io.BytesIO(image.getvalue()))
    return whole.getvalue()[: file.offset + 2 * tarfile.BLOCKSIZE]


TARS = {"gnu": tar_of_images(tarfile.GNU_FORMAT), "pax": tar_of_images(tarfile.PAX_FORMAT)}


@pytest.mark.parametrize("kind", TARS)
@inputs
@given(data=st.data())
def test_tar(tmp_path_factory: pytest.TempPathFactory, kind: str, data: st.DataObject) -> None:
    tar = tmp_path_factory.getbasetemp() / f"{kind}.tar"
    with damaged_file(tar, TARS[kind], data):
        for path in list_images(tar):
            assert ".." not in path.parts
            assert path.is_relative_to(tar)
            with used_or_refused(tar):
                assert read_image(path, max_pixels=10_000).ndim == 3
