"""Image decoding: what is right is exact, what is hostile is BadImage or ImageTooLarge and nothing else."""

import struct
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from shared.adapters.onnx.package import OnnxPackage
from shared.adapters.onnx.steps.image import ImageDecoder
from shared.domain.dtypes import DType
from shared.domain.errors import BadImage, ImageTooLarge
from shared.domain.signature import Content, TensorSpec
from shared.domain.tensors import Array, bytes_tensor
from shared.schemas.manifest import ImageStep
from tests.models import image_package

GREY = np.array([[0, 85], [170, 255]], dtype=np.uint8)


def encode(image: Image.Image, format_: str = "PNG", **options: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, format=format_, **options)
    return buffer.getvalue()


def decoder(shape: tuple[int | None, ...] = (None, 4), dtype: DType = DType.FP32, **step: Any) -> ImageDecoder:
    spec = TensorSpec("x", dtype, shape, content=Content.IMAGE)
    return ImageDecoder(ImageStep.model_validate({"input": "x", "width": 2, "height": 2} | step), spec, batched=True)


def decode(data: bytes, decode_with: ImageDecoder | None = None) -> list[Any]:
    result: list[Any] = (decode_with or decoder())(bytes_tensor([data]))[0].tolist()
    return result


def test_grey_png_row_by_row() -> None:
    assert decode(encode(Image.fromarray(GREY))) == pytest.approx([0, 1 / 3, 2 / 3, 1])


def test_scale_and_inversion() -> None:
    step = decoder(scale=16, invert=True)
    assert decode(encode(Image.fromarray(GREY)), step) == pytest.approx([16, 32 / 3, 16 / 3, 0])


def test_integer_inputs_are_rounded() -> None:
    step = decoder(dtype=DType.UINT8, scale=10)
    assert decode(encode(Image.fromarray(GREY)), step) == [0, 3, 7, 10]


def test_resize_is_a_box_filter() -> None:
    big = Image.fromarray(np.kron(GREY, np.ones((4, 4), dtype=np.uint8)))
    assert decode(encode(big)) == pytest.approx([0, 1 / 3, 2 / 3, 1])


def test_jpeg() -> None:
    data = encode(Image.new("RGB", (40, 30), (255, 255, 255)), "JPEG")
    assert decode(data) == pytest.approx([1, 1, 1, 1])


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((None, 1, 1, 3), [[[1, 0, 0.2]]]), ((None, 3, 1, 1), [[[1]], [[0]], [[0.2]]]), ((None, 3), [1, 0, 0.2])],
)
def test_colours_fill_the_input_by_its_shape(shape: tuple[int | None, ...], expected: list[Any]) -> None:
    step = decoder(shape, mode="RGB", width=1, height=1)
    np.testing.assert_allclose(decode(encode(Image.new("RGB", (3, 3), (255, 0, 51))), step), expected, rtol=1e-6)


def test_orientation_of_a_photo_is_honoured() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # taken with the camera turned: rotate by 90° clockwise to see it upright
    assert decode(encode(Image.fromarray(GREY), exif=exif)) == pytest.approx([2 / 3, 0, 1, 1 / 3])


@pytest.mark.parametrize(
    "image",
    [
        Image.new("RGBA", (2, 2), (0, 0, 0, 0)),
        Image.new("LA", (2, 2), (0, 0)),
        Image.new("P", (2, 2)),
        Image.new("RGB", (2, 2), (9, 9, 9)),
        Image.new("L", (2, 2), 9),
        Image.new("I;16", (2, 2), 9),
    ],
    ids=lambda image: image.mode,
)
def test_transparency_becomes_white(image: Image.Image) -> None:
    marks: dict[str, Any] = {"P": 0, "RGB": (9, 9, 9), "L": 9, "I;16": 9}
    options = {"transparency": marks[image.mode]} if image.mode in marks else {}
    assert decode(encode(image, **options)) == [1, 1, 1, 1]


def test_half_transparent_black_is_grey() -> None:
    assert decode(encode(Image.new("RGBA", (2, 2), (0, 0, 0, 51)))) == pytest.approx([0.8] * 4)


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    wide = Image.fromarray(np.array([[0, 21845], [43690, 65535]], dtype=np.uint16))
    assert decode(encode(wide)) == pytest.approx([0, 1 / 3, 2 / 3, 1])


def test_palette_and_one_bit_images() -> None:
    palette = Image.fromarray(GREY).convert("RGB").quantize(4)
    assert decode(encode(palette)) == pytest.approx([0, 1 / 3, 2 / 3, 1], abs=0.02)
    one_bit = Image.fromarray(np.array([[0, 255], [255, 0]], dtype=np.uint8)).convert("1")
    assert decode(encode(one_bit)) == [0, 1, 1, 0]


def test_cmyk_jpeg() -> None:
    assert decode(encode(Image.new("CMYK", (2, 2), (0, 0, 0, 0)), "JPEG")) == pytest.approx([1] * 4, abs=0.01)


def test_numbers_pass_through(tmp_path: Path) -> None:
    package = OnnxPackage.load(image_package(tmp_path / "m/1"), threads=1)
    numbers = np.array([[1, 2, 3, 4]], dtype=np.float32)
    np.testing.assert_array_equal(package.run({"x": numbers})["y"], numbers)
    np.testing.assert_allclose(
        package.run({"x": bytes_tensor([encode(Image.fromarray(GREY))])})["y"], [[0, 1 / 3, 2 / 3, 1]], rtol=1e-6
    )


def png(width: int, height: int, data: bytes = b"") -> bytes:
    """A PNG whose header claims any size; the pixels need not be there."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(1001, 1000), (20_000, 10_000), (2**31 - 1, 2**31 - 1)])
def test_bombs_are_told_from_their_header(size: tuple[int, int]) -> None:
    with pytest.raises(ImageTooLarge) as caught:
        decode(png(*size), decoder(max_pixels=1_000_000))
    assert caught.value.fields[0].pointer == "/instances/0"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        b"GIF89a" + bytes(50),
        b"\x89PNG\r\n\x1a\n",
        png(10, 10),
        png(0, 5),
        encode(Image.new("RGB", (64, 64)), "JPEG")[:-300],
        encode(Image.new("RGB", (64, 64)))[:-40],
        encode(Image.new("RGB", (4, 4)), "GIF"),
        encode(Image.new("RGB", (4, 4)), "BMP"),
        encode(Image.new("RGB", (4, 4)), "TIFF"),
        encode(Image.new("RGB", (4, 4)), "WEBP"),
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n",
    ],
)
def test_what_is_no_whole_png_or_jpeg_names_its_row(data: bytes) -> None:
    good = encode(Image.fromarray(GREY))
    with pytest.raises(BadImage) as caught:
        decoder()(bytes_tensor([good, data]))
    assert caught.value.fields[0].pointer == "/instances/1"
    assert caught.value.__cause__ is not None


def _seeds() -> list[bytes]:
    noise = np.random.default_rng(0).integers(0, 256, (12, 12, 4), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 8
    exif[0x010E] = "a description"
    colour = Image.fromarray(noise[..., :3].copy())
    return [
        encode(Image.fromarray(noise), exif=exif),
        encode(colour.quantize(8), transparency=1),
        encode(Image.fromarray(noise[..., 0].astype(np.uint16) * 257)),
        encode(colour, "JPEG", exif=exif),
        encode(colour, "JPEG", progressive=True),
        encode(colour.convert("CMYK"), "JPEG"),
    ]


SEEDS = _seeds()


@st.composite
def mutations(draw: st.DrawFn) -> bytes:
    data = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(1, 8))):
        position = draw(st.integers(0, len(data) - 1))
        match draw(st.sampled_from(["set", "cut", "insert", "drop", "zero"])):
            case "set":
                data[position] = draw(st.integers(0, 255))
            case "cut":
                data = data[: position + 1]
            case "insert":
                data[position:position] = draw(st.binary(max_size=8))
            case "drop":
                del data[position : position + draw(st.integers(1, 4))]
            case _:
                data[position : position + 4] = bytes(4)
        data = data or bytearray(b"\0")
    return _with_valid_checksums(bytes(data)) if draw(st.booleans()) else bytes(data)


def _with_valid_checksums(data: bytes) -> bytes:
    """Mend a PNG's chunk checksums, so that mutations reach further than the first check."""
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return data
    mended, position = bytearray(data), 8
    while position + 12 <= len(mended):
        (length,) = struct.unpack_from(">I", mended, position)
        end = position + 8 + length
        if end + 4 > len(mended):
            break
        struct.pack_into(">I", mended, end, zlib.crc32(mended[position + 4 : end]))
        position = end + 4
    return bytes(mended)


@settings(max_examples=600, deadline=None, suppress_health_check=list(HealthCheck))
@given(mutations())
def test_hostile_bytes_raise_nothing_else(data: bytes) -> None:
    try:
        pixels: Array = decoder(max_pixels=10_000)(bytes_tensor([data]))
    except (BadImage, ImageTooLarge):
        return
    assert pixels.shape == (1, 4)
    assert np.isfinite(pixels).all()


def test_the_images_of_one_request_share_a_limit() -> None:
    image = np.zeros((10, 10), dtype=np.uint8)
    data = encode(Image.fromarray(image))
    decode_all = decoder(max_pixels=100, max_request_pixels=250)
    assert len(decode_all(bytes_tensor([data] * 2))) == 2
    with pytest.raises(ImageTooLarge, match="250 pixels in all") as caught:
        decode_all(bytes_tensor([data] * 3))
    assert caught.value.fields[0].pointer == "/instances/2"
