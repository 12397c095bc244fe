from __future__ import annotations

import io
import struct
import subprocess
import sys
import threading
import zlib
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from picture_files import KINDS, WITHOUT_EXIF, encoded, picture_of

from engine.errors import PictureError
from engine.vision import image_decoding
from engine.vision.image_decoding import BACKGROUND, decode_picture, read_picture

EXACT = {"PNG", "BMP", "TIFF", "TIFF of LZW", "TIFF of deflate", "lossless WebP"}


def smooth(height: int = 48, width: int = 80) -> np.ndarray:
    """Colours that differ from corner to corner, which no decoder blurs."""
    y, x = np.mgrid[:height, :width]
    channels = [x * 255 / width, y * 255 / height, 255 - x * 255 / width]
    return np.stack(channels, axis=2).astype(np.uint8)


PICTURE = smooth()
NOISE = np.random.default_rng(0).integers(0, 256, (48, 80, 3), np.uint8)


@pytest.fixture(params=sorted(KINDS))
def kind(request: pytest.FixtureRequest) -> str:
    if request.param == "HEIC":
        pytest.importorskip("pillow_heif")
    return str(request.param)


def far(decoded: np.ndarray, expected: np.ndarray) -> float:
    assert decoded.shape == expected.shape
    assert decoded.dtype == np.uint8
    return float(np.abs(decoded.astype(int) - expected).mean())


def test_every_kind_is_decoded(kind: str) -> None:
    decoded = decode_picture(encoded(picture_of(PICTURE), kind))
    assert far(decoded, PICTURE) <= (0 if kind in EXACT else 6 if kind == "GIF" else 3)
    assert decoded.flags.c_contiguous


@pytest.mark.parametrize("kind", sorted(set(KINDS) - WITHOUT_EXIF))
@pytest.mark.parametrize("orientation", range(2, 9))
def test_every_kind_is_turned_upright(kind: str, orientation: int) -> None:
    if kind == "HEIC":
        pytest.importorskip("pillow_heif")
    decoded = decode_picture(encoded(picture_of(PICTURE), kind, orientation=orientation))
    assert far(decoded, PICTURE) < 4


def test_every_kind_that_is_cut_off_is_said_to_be(kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    data = encoded(picture_of(NOISE), kind)
    for share in (0.01, 0.3, 0.5, 0.9):
        with pytest.raises(PictureError, match=r"^it is cut off after [\d,]+ bytes"):
            decode_picture(data[: max(20, round(share * len(data)))])
    assert capfd.readouterr() == ("", "")


def test_jpeg_is_decoded_bit_for_bit_as_opencv_does(portrait: np.ndarray) -> None:
    """Published figures were measured on pictures that OpenCV decoded."""
    for size in ((512, 512), (511, 333), (7, 5)):
        image = cv2.resize(portrait, size)
        for sampling in (0x411111, 0x211111, 0x221111, 0x111111):  # 4:1:1, 4:2:2, 4:2:0, 4:4:4
            for progressive in (0, 1):
                flags = [
                    *(cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling),
                    *(cv2.IMWRITE_JPEG_PROGRESSIVE, progressive, cv2.IMWRITE_JPEG_QUALITY, 80),
                ]
                data = cv2.imencode(".jpg", image, flags)[1]
                expected = cv2.imdecode(data, cv2.IMREAD_COLOR)
                np.testing.assert_array_equal(decode_picture(data.tobytes()), expected)
    grey = cv2.imencode(".jpg", portrait[:, :, 0])[1]
    np.testing.assert_array_equal(decode_picture(grey.tobytes()), cv2.imdecode(grey, cv2.IMREAD_COLOR))


MODES = {
    "PNG": ["1", "L", "P", "LA", "RGBA"],
    "TIFF": ["1", "L", "P", "LA", "PA", "RGBA", "CMYK", "YCbCr"],
    "JPEG": ["1", "L", "CMYK", "YCbCr"],
    "WEBP": ["L", "RGBA"],
    "GIF": ["1", "L", "P", "RGBA"],
}


@pytest.mark.parametrize(("form", "mode"), [(form, mode) for form, modes in MODES.items() for mode in modes])
def test_pictures_of_every_mode(form: str, mode: str) -> None:
    picture = picture_of(PICTURE).convert("P" if mode == "PA" else mode).convert(mode)
    file = io.BytesIO()
    picture.save(file, form)
    decoded = decode_picture(file.getvalue())
    if mode in {"1", "L", "LA"}:
        grey = cv2.cvtColor(PICTURE, cv2.COLOR_BGR2GRAY)
        assert far(decoded, np.dstack([grey] * 3)) < (120 if mode == "1" else 4)  # 1: dithered
    else:
        assert far(decoded, PICTURE) < (20 if mode.startswith("P") else 6)


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_sixteen_bits_are_reduced_to_eight(form: str) -> None:
    grey = np.arange(48 * 80, dtype=np.uint16).reshape(48, 80) * 17
    file = io.BytesIO()
    PIL.Image.fromarray(grey).save(file, form)
    np.testing.assert_array_equal(decode_picture(file.getvalue())[:, :, 1], grey >> 8)


@pytest.mark.parametrize("end", [".png", ".tiff"])
def test_sixteen_bits_of_colour_are_reduced_to_eight(end: str) -> None:
    data = cv2.imencode(end, PICTURE.astype(np.uint16) * 257)[1]
    np.testing.assert_array_equal(decode_picture(data.tobytes()), PICTURE)


@pytest.mark.parametrize(
    "options", [{"bigtiff": True}, {"byteorder": ">"}, {"tile": (16, 16)}, {"planarconfig": "separate"}]
)
def test_tiff_files_of_other_programs_are_decoded(options: dict[str, object]) -> None:
    file, rgb = io.BytesIO(), PICTURE[:, :, ::-1]
    pixels = np.moveaxis(rgb, 2, 0) if "planarconfig" in options else rgb
    tifffile.imwrite(file, pixels, photometric="rgb", **options)
    np.testing.assert_array_equal(decode_picture(file.getvalue()), PICTURE)
    with pytest.raises(PictureError, match="it is cut off"):
        decode_picture(file.getvalue()[:3000])


def test_what_a_decoder_says_of_a_damaged_file_is_raised_and_not_written() -> None:
    code = (
        "import sys; from engine.vision.image_decoding import decode_picture as decode\n"
        "for data in sys.stdin.read().split():\n"
        "    try: decode(bytes.fromhex(data))\n"
        "    except Exception as error: assert 'damaged' in str(error) or 'cut off' in str(error), error"
    )
    whole = encoded(picture_of(PICTURE), "TIFF")
    samples = whole.index(struct.pack("<HHI", 277, 3, 1)) + 8
    many = whole[:samples] + struct.pack("<H", 2048) + whole[samples + 2 :]  # Pillow logs it
    cut = encoded(picture_of(NOISE), "TIFF of JPEG")[:3000]  # libtiff prints it
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=f"{many.hex()} {cut.hex()}",
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("alpha", ["assocalpha", "unassalpha"])
def test_both_kinds_of_transparency_of_tiff_are_followed(alpha: str) -> None:
    pixels = np.asarray(half_hidden()).copy()
    if alpha == "assocalpha":
        pixels[:, 40:] = 0
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, photometric="rgb", extrasamples=[alpha])
    check_half_hidden(decode_picture(file.getvalue()), within=0)


def test_numbers_that_are_no_brightness_are_refused() -> None:
    data = cv2.imencode(".tiff", PICTURE[:, :, 0].astype(np.float32))[1]
    with pytest.raises(PictureError, match="32 bits a channel"):
        decode_picture(data.tobytes())
    for kind in (np.float32, np.float64):
        data = cv2.imencode(".tiff", PICTURE.astype(kind))[1]
        with pytest.raises(PictureError, match="of an unsupported kind; save it in RGB with 8"):
            decode_picture(data.tobytes())


# What a viewer does not show does not count.

HOLDS_ALPHA = ["PNG", "WebP", "lossless WebP", "AVIF", "TIFF", "TIFF of LZW", "HEIC"]


def half_hidden() -> PIL.Image.Image:
    """A picture whose right half is transparent."""
    alpha = np.full(PICTURE.shape[:2], 255, np.uint8)
    alpha[:, 40:] = 0
    return PIL.Image.fromarray(np.dstack([PICTURE[:, :, ::-1], alpha]))


def check_half_hidden(decoded: np.ndarray, *, within: float) -> None:
    assert far(decoded[:, 42:], np.full((48, 38, 3), BACKGROUND, np.uint8)) <= within
    assert far(decoded[:, :38], PICTURE[:, :38]) <= max(within, 8)


@pytest.mark.parametrize("kind", HOLDS_ALPHA)
def test_what_is_transparent_is_not_seen(kind: str) -> None:
    if kind == "HEIC":
        pytest.importorskip("pillow_heif")
    check_half_hidden(decode_picture(encoded(half_hidden(), kind)), within=0 if kind in EXACT else 2)


def test_what_the_palette_makes_transparent_is_not_seen() -> None:
    colours = picture_of(PICTURE).quantize(100)
    hidden = np.asarray(colours).copy()
    hidden[:, 40:] += 100  # the same colours again, which are transparent
    picture = PIL.Image.fromarray(hidden, mode="P")
    palette = colours.getpalette()[:300]
    picture.putpalette(palette + palette)
    file = io.BytesIO()
    picture.save(file, "PNG", transparency=bytes([255] * 100 + [0] * 100))
    check_half_hidden(decode_picture(file.getvalue()), within=0)


@pytest.mark.parametrize("kind", ["GIF", "PNG"])
def test_a_colour_that_is_transparent_is_not_seen(kind: str) -> None:
    picture = picture_of(PICTURE).quantize(100)
    hidden = np.asarray(picture).copy()
    hidden[:, 40:] = 100
    whole = PIL.Image.fromarray(hidden, mode="P")
    whole.putpalette([*picture.getpalette()[:300], 255, 255, 255])
    file = io.BytesIO()
    whole.save(file, kind, transparency=100)
    check_half_hidden(decode_picture(file.getvalue()), within=0)


def test_grey_with_transparency_is_laid_over_grey() -> None:
    file = io.BytesIO()
    half_hidden().convert("LA").save(file, "PNG")
    decoded = decode_picture(file.getvalue())
    assert (decoded[:, 40:] == BACKGROUND[0]).all()


def test_what_is_half_transparent_is_half_seen() -> None:
    picture = PIL.Image.new("RGBA", (8, 8), (255, 255, 255, 128))
    assert (decode_picture(encoded(picture, "PNG")) == 192).all()


@pytest.mark.parametrize(("kind", "alpha"), [(k, a) for k in HOLDS_ALPHA for a in (0, 5)] + [("GIF", 0)])
def test_a_wholly_transparent_picture_is_refused(kind: str, alpha: int) -> None:
    if kind == "HEIC":
        pytest.importorskip("pillow_heif")
    picture = picture_of(PICTURE)
    picture.putalpha(alpha)
    with pytest.raises(PictureError, match="wholly transparent"):
        decode_picture(encoded(picture, kind))


@pytest.mark.parametrize("kind", ["GIF", "WebP", "AVIF", "TIFF", "PNG"])
def test_the_first_of_several_pictures_counts(kind: str) -> None:
    others = [picture_of(255 - PICTURE), picture_of(PICTURE[::-1])]
    data = encoded(picture_of(PICTURE), kind, save_all=True, append_images=others)
    assert far(decode_picture(data), PICTURE) < 6


def test_a_picture_beside_an_animation_that_is_not_of_it_is_refused() -> None:
    shown = picture_of(255 - PICTURE)
    data = encoded(
        picture_of(PICTURE), "PNG", save_all=True, append_images=[shown, shown.rotate(90)], default_image=True
    )
    with pytest.raises(PictureError, match="animated PNG"):
        decode_picture(data)


def test_the_primary_picture_of_a_heic_file_counts() -> None:
    pytest.importorskip("pillow_heif")
    data = encoded(
        picture_of(255 - PICTURE),
        "HEIC",
        save_all=True,
        append_images=[picture_of(PICTURE)],
        primary_index=1,
    )
    assert far(decode_picture(data), PICTURE) < 4


def test_a_picture_of_which_only_a_part_is_shown_is_not_seen_whole() -> None:
    data = encoded(picture_of(PICTURE), "AVIF")
    assert b"pixi" in data
    with pytest.raises(PictureError, match="cropped by its metadata"):
        decode_picture(data.replace(b"pixi", b"clap"))


def test_a_jpeg_may_bring_other_pictures_with_it() -> None:
    data = encoded(picture_of(PICTURE), "JPEG")
    second = encoded(picture_of(255 - PICTURE), "JPEG")
    assert far(decode_picture(data + second), PICTURE) < 3
    assert far(decode_picture(data + b"\0\0\0\x18ftypmp42" + bytes(5_000)), PICTURE) < 3


def test_an_orientation_that_viewers_do_not_know_of_is_not_followed() -> None:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="3"/></x:xmpmeta>'
    assert far(decode_picture(encoded(picture_of(PICTURE), "WebP", xmp=xmp)), PICTURE) < 3


@pytest.mark.parametrize("exif", [b"Exif\0\0nonsense", b"Exif\0\0II*\0\xff\xff\xff\xff", b"", b"Exif\0\0"])
def test_exif_data_that_makes_no_sense_is_passed_over(exif: bytes) -> None:
    assert far(decode_picture(encoded(picture_of(PICTURE), "JPEG", exif=exif)), PICTURE) < 3


@pytest.mark.parametrize(("tag", "value"), [(254, 1), (50706, b"\1\4\0\0")])
def test_a_preview_is_not_taken_for_the_picture(tag: int, value: object) -> None:
    with pytest.raises(PictureError, match="raw file"):
        decode_picture(encoded(picture_of(PICTURE), "TIFF", tiffinfo={tag: value}))


# Bytes from anywhere.


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(PictureError, match=r"none\.jpg: it cannot be read \(No such file"):
        read_picture(tmp_path / "none.jpg")
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(PictureError, match=r"empty\.jpg: it is empty \(0 bytes\)"):
        read_picture(tmp_path / "empty.jpg")


def png(width: int, height: int) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(9)))
        + chunk(b"IEND", b"")
    )


def jpeg(width: int, height: int) -> bytes:
    data = bytearray(encoded(picture_of(PICTURE), "JPEG"))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def gif(width: int, height: int) -> bytes:
    data = bytearray(encoded(picture_of(PICTURE), "GIF"))
    data[6:10] = struct.pack("<HH", width, height)
    return bytes(data)


def bmp(width: int, height: int) -> bytes:
    data = bytearray(encoded(picture_of(PICTURE), "BMP"))
    data[18:26] = struct.pack("<ii", width, height)
    return bytes(data)


def webp(width: int, height: int) -> bytes:
    canvas = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    frame = encoded(picture_of(PICTURE), "WebP")[12:]
    body = b"WEBPVP8X" + struct.pack("<IB3x", 10, 0) + canvas + frame
    return b"RIFF" + struct.pack("<I", len(body)) + body


def tile(width: int, height: int) -> bytes:
    """A small TIFF file in one tile of another size, deflated."""
    data = zlib.compress(bytes(9))
    tags = {256: 80, 257: 48, 258: 8, 259: 8, 262: 1, 277: 1, 322: width, 323: height, 324: 8, 325: len(data)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return (
        b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(tags)) + entries + bytes(4)
    )


def avif(width: int, height: int) -> bytes:
    data = encoded(picture_of(PICTURE), "AVIF")
    size = b"ispe\0\0\0\0"
    return data.replace(size + struct.pack(">II", 80, 48), size + struct.pack(">II", width, height))


@pytest.mark.parametrize("make", [png, jpeg, gif, bmp, webp, tile, avif])
@pytest.mark.parametrize("size_wh", [(12_000, 12_000), (16_000, 16_000)])
def test_pictures_that_would_fill_the_memory_are_refused(make, size_wh: tuple[int, int]) -> None:
    says = r"^it has (12000 by 12000|16000 by 16000|too many) pixels|^it is damaged \(WebP"
    with pytest.raises(PictureError, match=says):
        decode_picture(make(*size_wh))


def test_so_many_scans_that_they_would_take_hours_are_refused() -> None:
    data = encoded(picture_of(PICTURE), "progressive JPEG")
    with pytest.raises(PictureError, match="more than 1000 scans"):
        decode_picture(data[:-2] + b"\xff\xda\0\x08\1\1\0\0\x3f\0" * 1001 + data[-2:])


@given(st.data())
def test_any_bytes_are_a_picture_or_refused(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(sorted(set(KINDS) - {"HEIC", "AVIF"})))
    file = bytearray(encoded(picture_of(PICTURE[:8, :8]), kind))
    for _ in range(data.draw(st.integers(1, 6))):
        file[data.draw(st.integers(0, len(file) - 1))] = data.draw(st.integers(0, 255))
    try:
        decoded = decode_picture(bytes(file))
    except PictureError as exc:
        assert str(exc).startswith("it ")  # noqa: PT017 - or it is a picture
        assert "\n" not in str(exc)  # noqa: PT017
    else:
        assert decoded.dtype == np.uint8
        assert decoded.ndim == 3


@pytest.mark.parametrize("kind", ["HEIC", "AVIF"])
def test_any_byte_of_a_heic_or_avif_file_may_be_wrong(kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    if kind == "HEIC":
        pytest.importorskip("pillow_heif")
    whole = encoded(picture_of(PICTURE), kind)
    random = np.random.default_rng(1)
    for _ in range(40):
        file = bytearray(whole)
        file[random.integers(len(file))] = random.integers(256)
        with suppress(PictureError):
            decode_picture(bytes(file))
    assert capfd.readouterr() == ("", "")


def test_heic_without_its_decoder_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pillow_heif")
    data = encoded(picture_of(PICTURE), "HEIC")
    monkeypatch.setitem(__import__("sys").modules, "pillow_heif", None)
    with pytest.raises(PictureError, match=r"pip install 'facestream\[heif\]'"):
        decode_picture(data)


def test_pictures_are_decoded_by_several_threads_at_once() -> None:
    data = encoded(picture_of(PICTURE), "TIFF of LZW", orientation=6)
    wrong: list[object] = []

    def decode() -> None:
        wrong.extend(1 for _ in range(20) if far(decode_picture(data), PICTURE))

    threads = [threading.Thread(target=decode) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong
    assert not image_decoding._quiet.locked()
