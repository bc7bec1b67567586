"""An image file is read as a viewer shows it. Expected pixels are computed by hand."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from datafree._core.errors import UserError
from datafree.data.image_files import decode, look, visible_on

STEPS = np.array([[0, 40, 80], [120, 160, 200]], np.uint8)  # 2 x 3, no two alike
COLOURS = np.stack([STEPS, STEPS + 10, 250 - STEPS], -1)
FORMATS = {"png": {}, "tiff": {}, "webp": {"lossless": True}, "jpeg": {"quality": 100, "subsampling": 0}}


def encoded(image, form="png", **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def grey(content, background=255, shape=(1, 2, 3)):
    return decode(content, "it", shape, background)[0].tolist()


# What a viewer shows, by EXIF's definition of the corner where row 0 and column 0 of the stored pixels are.
TURNED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.T,
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].T,
    8: lambda a: np.rot90(a),
}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("orientation", TURNED)
def test_all_eight_orientations_of_exif(orientation, form):
    large = np.kron(STEPS, np.ones((8, 8), np.uint8))
    exif = Image.Exif()
    exif[274] = orientation
    options = {"tiffinfo": {274: orientation}} if form == "tiff" else {"exif": exif}
    content = encoded(Image.fromarray(large), form, **options, **FORMATS[form])
    expected = TURNED[orientation](large)
    seen = look(content)
    channels = 3 if form == "webp" else 1
    assert (seen.shape, seen.turned) == ((channels, *expected.shape), orientation != 1)
    got = decode(content, "it", (1, *expected.shape))[0]
    assert np.abs(got.astype(int) - expected).max() <= 4


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_orientation_that_is_none_turns_nothing(value):
    exif = Image.Exif()
    exif[274] = value
    assert grey(encoded(Image.fromarray(STEPS), exif=exif)) == STEPS.tolist()


def test_damaged_exif_turns_nothing():
    assert grey(encoded(Image.fromarray(STEPS), exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff")) == STEPS.tolist()


@pytest.mark.parametrize("background", [255, 0])
def test_transparency_is_shown_on_the_background(background):
    alpha = np.array([[0, 51, 255], [0, 51, 255]], np.uint8)
    expected = np.rint(STEPS * (alpha / 255) + background * (1 - alpha / 255))
    for mode in ("LA", "RGBA"):
        bands = [Image.fromarray(STEPS)] * (len(mode) - 1) + [Image.fromarray(alpha)]
        content = encoded(Image.merge(mode, bands))
        assert look(content).alpha
        got = decode(content, "it", (3, 2, 3), background)
        assert np.abs(got.astype(int) - expected).max() <= 1
        assert np.abs(np.array(grey(content, background)) - expected).max() <= 1


@pytest.mark.parametrize("form", ["png", "gif"])
def test_a_transparent_colour_of_a_palette_grey_or_rgb_image_is_shown_on_white(form):
    image = Image.fromarray(np.array([[0, 1, 1], [1, 0, 0]], np.uint8), "P")
    image.putpalette([10, 20, 30, 90, 90, 90])
    content = encoded(image, form, transparency=0)
    assert look(content).alpha
    assert decode(content, "it", (3, 2, 3))[0].tolist() == [[255, 90, 90], [90, 255, 255]]
    if form == "png":
        assert grey(encoded(Image.fromarray(STEPS), transparency=40)) == [[0, 255, 80], [120, 160, 200]]
        content = encoded(Image.fromarray(COLOURS), transparency=tuple(COLOURS[1, 1].tolist()))
        assert decode(content, "it", (3, 2, 3))[:, 1, 1].tolist() == [255, 255, 255]
        assert decode(content, "it", (3, 2, 3))[:, 0, 0].tolist() == COLOURS[0, 0].tolist()


@pytest.mark.parametrize(("lightness", "expected"), [(255, 255), (0, 0)])
def test_the_second_band_of_lab_is_a_colour_and_no_transparency(lightness, expected):
    content = encoded(Image.new("LAB", (3, 2), (lightness, 128, 128)), "tiff")  # a and b of 128: no hue
    assert not look(content).alpha and look(content).shape == (3, 2, 3)
    assert np.abs(decode(content, "it", (3, 2, 3)).astype(int) - expected).max() <= 2


def test_opaque_alpha_changes_no_pixel():
    content = encoded(Image.fromarray(np.dstack([COLOURS, np.full((2, 3), 255, np.uint8)])))
    assert decode(content, "it", (3, 2, 3)).tolist() == COLOURS.transpose(2, 0, 1).tolist()


@pytest.mark.parametrize(
    ("levels", "expected"),
    [([0], 255), ([100], 255), ([255], 0), ([200], 0), ([128], 255), ([0, 100], 255), ([0, 255], 128), ([255, 100], 0)],
)
@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_whatever_is_visible_is_seen_on_its_background(tmp_path, levels, expected, mode):
    alpha = np.zeros((16, 16), np.uint8)
    alpha[4:9, 4:12] = 255
    for level in levels:
        bands = [Image.new("L", (16, 16), level)] * (len(mode) - 1) + [Image.fromarray(alpha)]
        Image.merge(mode, bands).save(tmp_path / f"{level}.png")
    Image.merge(mode, [Image.new("L", (16, 16), 255)] * len(mode)).save(tmp_path / "opaque.png")
    Image.merge(mode, [Image.new("L", (16, 16), 0)] * len(mode)).save(tmp_path / "empty.png")
    assert visible_on(sorted(tmp_path.iterdir())) == expected
    for level in levels:
        got = decode(tmp_path / f"{level}.png", "it", (1, 16, 16), expected)[0]
        assert (got[alpha > 0] == level).all() and (got[alpha == 0] == expected).all()
    assert visible_on([tmp_path / "opaque.png", tmp_path / "empty.png"]) == 255


@pytest.mark.parametrize(
    ("value", "expected"), [(0, 0), (65535, 255), (257 * 60, 60), (257 * 60 + 128, 60), (32768, 128)]
)
@pytest.mark.parametrize("form", ["png", "tiff", "ppm"])
def test_16_bits_become_8_by_value_over_65535(value, expected, form):
    content = encoded(Image.fromarray(np.full((2, 3), value, np.uint16)), form)
    assert look(content).shape == (1, 2, 3)
    assert set(np.ravel(grey(content))) == {expected}
    assert set(np.ravel(decode(content, "it", (3, 2, 3)))) == {expected}


def test_floats_from_0_to_1_are_scaled_and_other_scales_are_refused():
    assert grey(encoded(Image.fromarray(STEPS.astype(np.float32) / 255), "tiff")) == STEPS.tolist()
    for values in (STEPS.astype(np.float32), STEPS.astype(np.int32) * 1000, STEPS.astype(np.float32) * np.nan):
        with pytest.raises(UserError, match=r"image 'it' cannot be read \(values from .* whose white is unknown\)"):
            grey(encoded(Image.fromarray(values), "tiff"))


def test_bits_grey_palettes_and_four_inks():
    bits = Image.fromarray(STEPS > 100)
    assert (look(encoded(bits)).shape, grey(encoded(bits))) == ((1, 2, 3), [[0, 0, 0], [255, 255, 255]])
    palette = Image.fromarray(STEPS).quantize(8)
    assert look(encoded(palette)).shape[0] == 1 and grey(encoded(palette)) == STEPS.tolist()
    coloured = Image.fromarray(COLOURS).quantize(8)
    assert look(encoded(coloured)).shape[0] == 3
    inks = Image.new("CMYK", (3, 2), (0, 255, 255, 0))  # no cyan, all magenta and yellow: red
    assert decode(encoded(inks, "tiff"), "it", (3, 2, 3))[:, 0, 0].tolist() == [255, 0, 0]


def png(rows, depth: int, kind: int, transparent: bytes = b"") -> bytes:
    """A PNG written by hand: `rows` of packed samples; colour type `kind` is 0 grey, 2 RGB, 4 grey and 6 RGB with alpha."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = [np.asarray(row, ">u2" if depth == 16 else np.uint8).tobytes() for row in rows]
    width = 8 * len(rows[0]) // (depth * {0: 1, 2: 3, 4: 2, 6: 4}[kind])
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, len(rows), depth, kind, 0, 0, 0))
    extra = chunk(b"tRNS", transparent) if transparent else b""
    pixels = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + header + extra + pixels + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("depth", "row", "hidden", "levels"),
    [
        (1, [0b01010101], 1, [0, 255, 0, 255, 0, 255, 0, 255]),
        (1, [0b01010101], 0, [0, 255, 0, 255, 0, 255, 0, 255]),
        (2, [0b00011011], 1, [0, 85, 170, 255]),
        (4, [0x19, 0x2F], 9, [17, 153, 34, 255]),
        (8, [0, 100, 200, 255], 200, [0, 100, 200, 255]),
        (16, [0, 30000, 30001, 65535], 30000, [0, 117, 117, 255]),
        (16, [0, 30000, 65535, 1000], 65535, [0, 117, 255, 4]),
    ],
)
def test_a_transparent_grey_level_is_shown_on_the_ground_at_every_depth(tmp_path, depth, row, hidden, levels):
    content = png([row], depth, 0, struct.pack(">H", hidden))
    count, top = len(levels), 2**depth - 1
    samples = row if depth >= 8 else [int(bit, 2) for bit in _parts("".join(f"{byte:08b}" for byte in row), depth)]
    assert [round(255 * sample / top) for sample in samples] == levels
    for ground in (128, 40):
        expected = [ground if sample == hidden else level for sample, level in zip(samples, levels)]
        assert grey(content, ground, (1, 1, count)) == [expected]
        assert decode(content, "it", (3, 1, count), ground).tolist() == [[expected]] * 3
    assert look(content).alpha and look(content).shape == (1, 1, count)
    (tmp_path / "it.png").write_bytes(content)
    far = {
        ground: np.mean([abs(own - ground) for own, s in zip(levels, samples) if s != hidden])
        for ground in (255, 0, 128)
    }
    assert visible_on([tmp_path / "it.png"]) == next(ground for ground, own in far.items() if own >= 64)


def _parts(text: str, size: int) -> list[str]:
    return [text[place : place + size] for place in range(0, len(text), size)]


def test_a_transparent_colour_of_16_bits_is_that_colour_alone():
    row = [[0, 0, 0], [30000, 20000, 10000], [30001, 20000, 10000], [30000, 20000, 10001]]
    content = png([row], 16, 2, struct.pack(">HHH", 30000, 20000, 10000))
    got = decode(content, "it", (3, 1, 4), 255)[:, 0].T.tolist()
    assert got == [[0, 0, 0], [255, 255, 255], [117, 78, 39], [117, 78, 39]]
    assert look(content).alpha


def test_16_bits_of_grey_with_alpha_are_grey():
    content = png([[[0, 65535], [30000, 65535], [65535, 0]]], 16, 4)
    assert look(content).shape == (1, 1, 3) and look(content).alpha
    assert grey(content, 40, (1, 1, 3)) == [[0, 117, 40]]
    assert decode(content, "it", (3, 1, 3), 40).tolist() == [[[0, 117, 40]]] * 3
    assert look(png([[[0, 0, 0, 65535]]], 16, 6)).shape == (3, 1, 1)


@pytest.mark.parametrize("orientation", [1, 3])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_where_zero_is_white_it_is_shown_white_at_every_depth(kind, orientation):
    top = 1 if kind == np.float32 else np.iinfo(kind).max
    values = np.array([[0, 0.2, 0.6, 1]], np.float64) * top
    stored = np.rint(values).astype(kind) if kind != np.float32 else values.astype(kind)
    content = bytearray(encoded(Image.fromarray(stored), "tiff", tiffinfo={274: orientation}))
    at = content.index(struct.pack("<HHI", 262, 3, 1)) + 8  # the tag that says what 0 is: 1 for black
    assert content[at] == 1
    content[at] = 0
    expected = [255, 204, 102, 0][:: 1 if orientation == 1 else -1]
    assert grey(bytes(content), shape=(1, 1, 4)) == [expected]
    assert decode(bytes(content), "it", (3, 1, 4)).tolist() == [[expected]] * 3


def test_a_png_whose_pixels_are_overwritten_is_refused_by_name(tmp_path):
    levels = np.random.RandomState(0).randint(0, 256, (64, 64)).astype(np.uint8)
    content = bytearray(encoded(Image.fromarray(levels)))
    content[len(content) // 2 : len(content) // 2 + 200] = bytes(200)
    (tmp_path / "it.png").write_bytes(content)
    for source in (bytes(content), tmp_path / "it.png"):
        with pytest.raises(UserError, match=r"image 'it' cannot be read \(the checksum of its pixels is wrong"):
            decode(source, "it", (1, 64, 64))
    for form in ("RGBA", "P", "L"):
        whole = encoded(Image.fromarray(levels).convert(form))
        assert (decode(whole, "it", (1, 64, 64))[0] == levels).all()


@pytest.mark.parametrize("form", ["gif", "tiff", "png", "webp"])
def test_the_first_frame_is_read_and_counted(form):
    first, second = (Image.fromarray(np.full((2, 3), level, np.uint8)) for level in (40, 200))
    options = {"lossless": True} if form == "webp" else {}
    content = encoded(first, form, save_all=True, append_images=[second], **options)
    assert look(content).frames and set(np.ravel(grey(content))) == {40}
    assert not look(encoded(first, form, **options)).frames


@pytest.mark.parametrize("form", ["jpeg", "png", "tiff", "gif", "webp", "bmp", "ppm"])
def test_files_that_are_cut_or_empty_are_refused_by_name(form):
    content = encoded(Image.fromarray(np.random.RandomState(0).randint(0, 256, (40, 40)).astype(np.uint8)), form)
    for length in (0, 3, 20, len(content) // 2):
        with pytest.raises(UserError, match="image 'it' cannot be read"):
            decode(content[:length], "it", (1, 40, 40))


def bomb(side):
    """A PNG of side x side black pixels of one bit."""
    return encoded(Image.new("1", (side, side)), optimize=True)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 8)])
def test_an_image_that_would_fill_memory_is_refused_by_its_header(shape):
    content = bomb(9500)
    assert len(content) < 20_000
    with pytest.raises(
        UserError, match=r"image 'it' is too large .* expected at most 89478485 pixels; make it smaller"
    ):
        decode(content, "it", shape)
    for mode, side in (("1", 8200), ("RGB", 4200), ("RGBA", 4200)):
        with pytest.raises(
            UserError, match=r"'it' is too large: .* bytes decode to .*; expected at most 67,108,864; make"
        ):
            look(encoded(Image.new(mode, (side, side))), "it")


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_large_jpeg_is_reduced_while_it_is_decoded_and_looks_the_same(orientation):
    exif = Image.Exif()
    exif[274] = orientation
    ramp = np.linspace(0, 255, 640).astype(np.uint8)[None].repeat(320, 0)
    content = encoded(Image.fromarray(ramp), "jpeg", quality=95, exif=exif)
    whole = ImageOps.exif_transpose(Image.fromarray(np.asarray(Image.open(io.BytesIO(content)))))
    upright = TURNED[orientation](np.asarray(whole))
    shape = (1, 10, 20) if orientation == 1 else (1, 20, 10)
    expected = upright.reshape(shape[1], 32, shape[2], 32).mean((1, 3))
    got = decode(content, "it", shape)[0]
    assert np.abs(got - expected)[2:-2, 2:-2].max() <= 3


def scans(image: Image.Image, count: int) -> bytes:
    """A progressive JPEG whose last scan stands there `count` times."""
    data = encoded(image, "jpeg", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * count + data[-2:]


def test_a_jpeg_with_hundreds_of_scans_is_refused_before_it_is_decoded():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8))
    with pytest.raises(UserError, match=r"'it' has more than 100 scans, .*; save it again"):
        look(scans(image, 200), "it")
    assert decode(scans(image, 1), "it", (3, 16, 16)).shape == (3, 16, 16)


def test_hundreds_of_scans_are_refused_in_a_jpeg_of_several_images_too():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8))
    content = encoded(image, "mpo", save_all=True, append_images=[image] * 200, progressive=True)
    assert Image.open(io.BytesIO(content)).format == "MPO"
    with pytest.raises(UserError, match=r"'it' has more than 100 scans"):
        look(content, "it")


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_a_tiff_of_fewer_than_16_bits_is_white_at_its_own_largest_value(bits):
    """Written by hand: Pillow writes none."""
    most = 2**bits - 1
    levels = [[0, most // 3, most // 2], [most - 1, most, 1]]
    rows = b""
    for row in levels:
        digits = "".join(f"{level:0{bits}b}" for level in row)
        digits = digits.ljust(-(-len(digits) // 8) * 8, "0")
        rows += bytes(int(digits[place : place + 8], 2) for place in range(0, len(digits), 8))
    tags = [
        (256, 3), (257, 2), (258, bits), (259, 1), (262, 1), (273, 8), (277, 1), (278, 2), (279, len(rows)),
    ]  # fmt: skip
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    padding = b"\0" * (len(rows) % 2)
    content = b"II*\0" + struct.pack("<I", 8 + len(rows) + len(padding)) + rows + padding + directory + b"\0" * 4
    expected = [[round(255 * level / most) for level in row] for row in levels]
    try:
        shown = grey(content)
    except UserError:
        assert bits != 12, "Pillow reads 12 bits"
    else:
        assert np.abs(np.array(shown) - expected).max() <= 1
