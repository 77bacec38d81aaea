"""Pre-processing: encoded images become the numbers of an input.

The bytes are hostile until proven otherwise: two formats only, the number of pixels is read from the header and checked
before anything is decompressed, and whatever the decoder raises becomes BadImage.
"""

from io import BytesIO
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from shared.domain.dtypes import DType
from shared.domain.errors import BadImage, ImageTooLarge, InvalidPackage, SluiceError, pointer
from shared.domain.signature import Dim, TensorSpec
from shared.domain.tensors import NUMPY_DTYPES, Array
from shared.schemas.manifest import ImageStep

if TYPE_CHECKING:
    from PIL.Image import Image


class ImageDecoder:
    """BYTES [batch] of PNG or JPEG → numbers [batch, …] of the input's dtype.

    Pixels come in rows of height × width × channels; an RGB input of shape [3, height, width] gets them channel by
    channel. Numbers, which a caller may send in place of images, pass through.
    """

    def __init__(self, step: ImageStep, spec: TensorSpec, *, batched: bool) -> None:
        """InvalidPackage if the step's pixels cannot fill one instance of the input."""
        self._step = step
        self._dtype = spec.dtype
        self._batched = batched
        channels = 1 if step.mode == "L" else 3
        pixels = (step.height, step.width, channels)
        instance = spec.shape[1:] if batched else spec.shape
        self._planar = channels > 1 and _matches(instance, (channels, step.height, step.width))
        self._shape = _instance_shape(instance, pixels, planar=self._planar)
        if spec.dtype in (DType.BYTES, DType.BOOL, DType.BF16):
            raise InvalidPackage(f"The image step fills {spec.name!r} with numbers; it cannot be {spec.dtype}.")

    def __call__(self, array: Array) -> Array:
        """Numbers for encoded images; BadImage and ImageTooLarge name the row."""
        if array.dtype != np.object_:
            return array
        left = self._step.max_request_pixels
        images: list[Array] = []
        for row, data in enumerate(array.reshape(-1)):
            image, pixels = self._decode(data, pointer("/instances", row), left)
            images.append(image)
            left -= pixels
        return np.stack(images) if self._batched else images[0]

    def _decode(self, data: bytes, place: str, left: int) -> tuple[Array, int]:
        """The numbers, and how many of the `left` pixels that this request may hold it took."""
        # Only packages with images pay for this import.
        from PIL import Image

        try:
            with Image.open(BytesIO(data), formats=("PNG", "JPEG")) as image:
                taken = self._check_size(image, place, left)
                pixels = self._pixels(image)
        except SluiceError:
            raise
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            raise ImageTooLarge.at(place, self._limit()) from None
        except Exception as error:  # decoders raise nearly every class there is on hostile bytes
            raise BadImage.at(place, "is not a whole PNG or JPEG image") from error
        return self._numbers(pixels), taken

    def _check_size(self, image: "Image", place: str, left: int) -> int:
        """The pixels that the header promises, before one of them is decompressed."""
        pixels = image.width * image.height
        if pixels > self._step.max_pixels:
            raise ImageTooLarge.at(place, f"is {image.width}×{image.height} pixels; {self._limit()}")
        if pixels > left:
            limit = self._step.max_request_pixels
            raise ImageTooLarge.at(place, f"brings the images of this request over the limit of {limit} pixels in all")
        return pixels

    def _limit(self) -> str:
        return f"the limit is {self._step.max_pixels} pixels"

    def _pixels(self, image: "Image") -> Array:
        """uint8 [height, width, channels], upright, on white, in the step's mode and size."""
        from PIL import Image, ImageOps

        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        flat = _on_white(image).convert(self._step.mode)
        sized = flat.resize((self._step.width, self._step.height), Image.Resampling.BOX)
        return np.asarray(sized).reshape(self._step.height, self._step.width, -1)

    def _numbers(self, pixels: Array) -> Array:
        values = (255 - pixels if self._step.invert else pixels).astype(np.float64) * (self._step.scale / 255.0)
        target = NUMPY_DTYPES[self._dtype]
        if self._dtype.is_integer:
            limits = np.iinfo(str(target))
            values = np.clip(np.rint(values), limits.min, limits.max)
        ordered = values.transpose(2, 0, 1) if self._planar else values
        return np.ascontiguousarray(ordered.astype(target)).reshape(self._shape)


def _on_white(image: "Image") -> "Image":
    """The image without transparency, in 8 bits a channel."""
    from PIL import Image

    if image.mode.startswith("I"):
        return _from_16_bits(image)
    if not image.has_transparency_data:
        return image.convert("RGB") if image.mode not in ("L", "RGB") else image
    layer = image.convert("RGBA")
    background = Image.new("RGBA", layer.size, "white")
    background.alpha_composite(layer)
    return background.convert("RGB")


def _from_16_bits(image: "Image") -> "Image":
    """16-bit grey scaled to 8 bits; Pillow's own conversion clips at 255 instead."""
    from PIL import Image

    values = np.asarray(image).astype(np.uint32)
    grey = ((values * 255 + 32_767) // 65_535).clip(0, 255).astype(np.uint8)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[values == transparent] = 255
    return Image.fromarray(grey)


def _matches(instance: tuple[Dim, ...], shape: tuple[int, ...]) -> bool:
    return len(instance) == len(shape) and all(want in (None, have) for want, have in zip(instance, shape, strict=True))


def _instance_shape(instance: tuple[Dim, ...], pixels: tuple[int, int, int], *, planar: bool) -> tuple[int, ...]:
    height, width, channels = pixels
    candidates: list[tuple[int, ...]] = [(channels, height, width)] if planar else [pixels]
    candidates += [(height, width)] if channels == 1 else []
    candidates += [(1, height, width)] if channels == 1 else []
    candidates += [(prod(pixels),)]
    for candidate in candidates:
        if _matches(instance, candidate):
            return candidate
    fixed = tuple(dim for dim in instance if dim is not None)
    if len(fixed) == len(instance) and prod(fixed) == prod(pixels):
        return fixed
    wanted = [-1 if dim is None else dim for dim in instance]
    raise InvalidPackage(
        f"An image of {width}×{height} with {channels} channels does not fill an instance of shape {wanted}."
    )
