"""Omniglot's files: what loads, and what is an error of one line that names what is wrong."""

import io
import pickle
import struct
import zipfile

import numpy as np
import pytest
from PIL import Image

from raremem.benchmarks.data.errors import DataError
from raremem.benchmarks.data.omniglot import load_omniglot

PARTS = ("images_background", "images_evaluation")
IMAGES = np.random.default_rng(0).random((2, 20, 105, 105)) < 0.9
FIRST = "images_background/Alphabet/character00/0000.png"


def png(image, mode="1"):
    content = io.BytesIO()
    picture = Image.fromarray(image).convert(mode)
    if mode == "P":
        picture = Image.fromarray((~image).astype(np.uint8))
        picture.putpalette([255, 255, 255, 0, 0, 0])
    picture.save(content, "png")
    return content.getvalue()


def members(part, mode="1"):
    return {
        f"{part}/Alphabet/character{number:02}/{drawer:04}.png": png(image, mode)
        for number, character in enumerate(IMAGES)
        for drawer, image in enumerate(character)
    }


OFFICIAL = {part: members(part) for part in PARTS}


def write_zips(folder, changed=None, left_out=()):
    """Both zips; what is changed or added is in that of the background."""
    for part in PARTS:
        content = {**OFFICIAL[part], **((changed or {}) if part == PARTS[0] else {})}
        with zipfile.ZipFile(folder / f"{part}.zip", "w") as archive:
            for name, data in content.items():
                if name not in left_out:
                    archive.writestr(name, data, zipfile.ZIP_DEFLATED if len(data) > 10_000 else zipfile.ZIP_STORED)


def write_npz(folder, **arrays):
    for part in PARTS:
        np.savez(folder / f"{part}.npz", **arrays)


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    folder = tmp_path_factory.mktemp("npz")
    write_npz(folder, images=IMAGES)
    return load_omniglot(folder).train


def told(folder, *named):
    with pytest.raises(DataError) as raised:
        load_omniglot(folder)
    for name in named:
        assert name in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
def test_black_and_white_is_read_from_pngs_of_every_mode(tmp_path, mode, expected):
    write_zips(tmp_path, members(PARTS[0], mode))
    assert np.array_equal(load_omniglot(tmp_path).train, expected)


def test_extracted_folders_load(tmp_path, expected):
    write_zips(tmp_path, {"__MACOSX/._x.png": b"", "images_background/.DS_Store": b"x"})
    for part in PARTS:
        with zipfile.ZipFile(tmp_path / f"{part}.zip") as archive:
            archive.extractall(tmp_path / "omniglot")
        (tmp_path / f"{part}.zip").unlink()
    assert np.array_equal(load_omniglot(tmp_path).train, expected)
    (tmp_path / "omniglot" / FIRST).write_bytes(b"damaged")
    told(tmp_path, FIRST)
    (tmp_path / "omniglot" / FIRST).unlink()
    told(tmp_path, "character00", "19 images")


LITTER = (
    "__MACOSX/images_background/._Alphabet", "__MACOSX/x.png", ".DS_Store", "images_background/Alphabet/.DS_Store",
    "images_background/Alphabet/character00/Thumbs.db", "images_background/desktop.ini", "Desktop.ini",
    "images_background/Alphabet/character00/._0000.png", "images_background/Alphabet/Icon\r", ".Trashes/x.png",
)  # fmt: skip


def test_what_operating_systems_leave_is_skipped(tmp_path, expected):
    write_zips(tmp_path, {"images_background/": b"", "images_background\\empty\\": b"", **dict.fromkeys(LITTER, b"junk")})
    assert np.array_equal(load_omniglot(tmp_path).train, expected)


def test_a_zip_made_with_backslashes_loads(tmp_path, expected):
    moved = {name.replace("/", "\\"): content for name, content in OFFICIAL[PARTS[0]].items()}
    write_zips(tmp_path, moved, left_out=OFFICIAL[PARTS[0]])
    assert np.array_equal(load_omniglot(tmp_path).train, expected)


def sized(width, height):
    return OFFICIAL[PARTS[0]][FIRST][:16] + struct.pack(">II", width, height) + OFFICIAL[PARTS[0]][FIRST][24:]


grey = np.full((105, 105), 200, np.uint8)
grey[:9] = 7
jpeg = io.BytesIO()
Image.fromarray(grey).save(jpeg, "jpeg")
FOREIGN = {
    "empty": (FIRST, b""),
    "cut": (FIRST, OFFICIAL[PARTS[0]][FIRST][:-40]),
    "changed": (FIRST, OFFICIAL[PARTS[0]][FIRST][:60] + b"\xff" * 20 + OFFICIAL[PARTS[0]][FIRST][80:]),
    "a text": (FIRST, b"not an image"),
    "a JPEG": (FIRST, jpeg.getvalue()),
    "in grey": (FIRST, png(grey, "L")),
    "another size": (FIRST, png(IMAGES[0, 0, :, :100])),
    "12,000 x 12,000": (FIRST, sized(12_000, 12_000)),
    "2,000,000,000 wide": (FIRST, sized(2_000_000_000, 1)),
    "no pixels": (FIRST, sized(0, 0)),
    "many bytes": (FIRST, OFFICIAL[PARTS[0]][FIRST] + bytes(10_000_000)),
    "a text beside": ("images_background/README.txt", b"read me"),
    "a JPEG beside": ("images_background/Alphabet/character00/0020.jpg", jpeg.getvalue()),
    "above": ("../Alphabet/character00/0020.png", OFFICIAL[PARTS[0]][FIRST]),
    "above, by backslashes": ("a\\..\\..\\x.png", OFFICIAL[PARTS[0]][FIRST]),
    "absolute": ("/images/Alphabet/character00/0020.png", OFFICIAL[PARTS[0]][FIRST]),
    "in no folder": ("0020.png", OFFICIAL[PARTS[0]][FIRST]),
    "without a name's end": ("images_background/Alphabet/character00/0020", OFFICIAL[PARTS[0]][FIRST]),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_member_that_is_no_image_of_omniglot_is_named(tmp_path, kind):
    name, content = FOREIGN[kind]
    write_zips(tmp_path, {name: content})
    told(tmp_path, "images_background.zip", repr(name))


@pytest.mark.parametrize(
    ("place", "change"),
    [
        pytest.param(8, b"\x01", id="encrypted"),
        pytest.param(10, b"\x63", id="packed in an unknown way"),
        pytest.param(10, b"\x08", id="said to be deflated"),
        pytest.param(16, b"\0\0\0\0", id="another checksum"),
        pytest.param(42, b"\xff\xff", id="elsewhere"),
    ],
)
def test_a_member_whose_entry_is_damaged_is_named(tmp_path, place, change):
    write_zips(tmp_path)
    content = bytearray((tmp_path / "images_background.zip").read_bytes())
    entry = content.index(b"PK\x01\x02")
    content[entry + place : entry + place + len(change)] = change
    (tmp_path / "images_background.zip").write_bytes(content)
    told(tmp_path, "images_background.zip", FIRST)


def test_a_member_that_is_there_twice_is_named(tmp_path):
    write_zips(tmp_path)
    with zipfile.ZipFile(tmp_path / "images_background.zip", "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr(FIRST, OFFICIAL[PARTS[0]][FIRST])
    told(tmp_path, FIRST, "twice")


@pytest.mark.parametrize("cut", [0, 1, 100, -1, -100])
def test_a_cut_file_is_named(tmp_path, cut):
    write_zips(tmp_path)
    for suffix in ("zip", "npz"):
        content = (tmp_path / "images_background.zip").read_bytes()
        (tmp_path / f"images_background.{suffix}").write_bytes(content[:cut])
        told(tmp_path, f"images_background.{suffix}")


def test_classes_are_whole_and_no_more_than_there_are(tmp_path):
    write_zips(tmp_path, left_out=[FIRST])
    told(tmp_path, "'images_background/Alphabet/character00' has 19 images")
    write_zips(tmp_path, {FIRST.replace("0000", "0020"): OFFICIAL[PARTS[0]][FIRST]})
    told(tmp_path, "'images_background/Alphabet/character00' has 21 images")
    write_zips(tmp_path, left_out=OFFICIAL[PARTS[0]])
    told(tmp_path, "images_background.zip has no images")
    write_zips(tmp_path, {f"a/{number}/0.png": OFFICIAL[PARTS[0]][FIRST] for number in range(1624)}, OFFICIAL[PARTS[0]])
    told(tmp_path, "more than 1623 characters")


def with_(place, value, dtype=None):
    images = IMAGES.astype(dtype) if dtype else IMAGES.copy()
    images[place] = value
    return images


WRONG = {
    "0 and 255": (IMAGES.astype(np.uint8) * 255, "uint8"),
    "0 and 1": (IMAGES.astype(np.int64), "int64"),
    "numbers": (IMAGES.astype(np.float32), "float32"),
    "NaN": (with_((1, 3, 7), np.nan, np.float32), "float32"),
    "inverted": (~IMAGES, "image 0 of class 0 has more ink than paper"),
    "one inverted": (with_((1, 3), ~IMAGES[1, 3]), "image 3 of class 1 has more ink than paper"),
    "without ink": (with_((1, 4), True), "image 4 of class 1 has no ink"),
    "no class": (IMAGES[:0], "(0, 20, 105, 105)"),
    "19 of a class": (IMAGES[:, :19], "(2, 19, 105, 105)"),
    "smaller": (IMAGES[..., :28, :28], "(2, 20, 28, 28)"),
    "flat": (IMAGES.ravel(), "expected [1 to 1623, 20, 105, 105]"),
    "a number": (np.array(True), "()"),
    "objects": (np.array([{}]), "images_background.npz"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_arrays_that_are_not_omniglots_are_told(tmp_path, kind):
    images, named = WRONG[kind]
    write_npz(tmp_path, images=images)
    told(tmp_path, "images_background.npz", named)


def test_an_array_is_not_read_before_its_size_is_known(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|b1", "fortran_order": False, "shape": (10**9, 20, 105, 105)})
    with zipfile.ZipFile(tmp_path / "images_background.npz", "w") as archive:
        archive.writestr("images.npy", header.getvalue())
    told(tmp_path, "images_background.npz", "1000000000")


def test_other_files_called_npz_are_told(tmp_path):
    write_npz(tmp_path, pictures=IMAGES)
    told(tmp_path, "images_background.npz", "images.npy")
    path = tmp_path / "images_background.npz"
    for content in (pickle.dumps(IMAGES), b"", b"\x93NUMPY", b"PK\x05\x06" + bytes(18)):
        path.write_bytes(content)
        told(tmp_path, "images_background.npz")
    path.unlink()
    path.mkdir()
    told(tmp_path, "images_background.npz")
