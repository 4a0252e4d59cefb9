"""Which sizes and lengths a model makes, and the nearest ones to what was asked."""

import math
import re
from typing import Final, Protocol

from shared.vocabulary.catalog import Model, Size
from shared.vocabulary.request import Overrides
from shared.vocabulary.spec import ImageRef

_SIZE: Final = re.compile(r"([0-9]{1,5})[xX]([0-9]{1,5})")
# Names that typed clients offer, which the 5B's patches cannot make exactly.
_SNAPPED: Final = {
    Size(1280, 720): Size(1280, 704),
    Size(720, 1280): Size(704, 1280),
}
_SAME_AREA: Final = 0.1  # image models are at home at any aspect of a native area


class Findings(Protocol):
    """Where faults and warnings go."""

    def fault(self, param: str, code: str, message: str) -> None:
        """Note a reason to refuse."""

    def warn(self, param: str, code: str, message: str) -> None:
        """Note what the sender should know."""


def size_of(asked: str | None, model: Model, image: ImageRef | None, found: Findings) -> Size:
    """Settle the frame size; after a fault, the model's own."""
    native = model.native_sizes[0]
    if asked is None or asked == "auto":
        if asked == "auto" and not model.takes_image:
            found.fault(
                "size",
                "not_for_model",
                f"size is 'auto'. {model.id} takes no image to follow. Use {native}.",
            )
        return _auto(model, image) if image and model.takes_image else native
    match = _SIZE.fullmatch(asked)
    if match is None:
        found.fault(
            "size",
            "invalid_value",
            f"size is '{asked}'. It reads as width x height in pixels. Use {native}, for example.",
        )
        return native
    return _fitting(Size(int(match[1]), int(match[2])), model, image, found)


def _fitting(size: Size, model: Model, image: ImageRef | None, found: Findings) -> Size:
    snapped = _SNAPPED.get(size)
    if not _fits(size, model) and snapped in model.native_sizes:
        found.warn(
            "size",
            "size_snapped",
            f"size is {size}. Sides of {model.id} are multiples of {model.size_multiple}. "
            f"{snapped} is rendered.",
        )
        return snapped
    if not _fits(size, model):
        near = " or ".join(str(one) for one in _nearest(size, model))
        found.fault(
            "size",
            "invalid_value",
            f"size is {size}. {model.id} makes sides of {model.min_side} to {model.max_side} "
            f"pixels in steps of {model.size_multiple}, up to {model.max_area} pixels in all. "
            f"Use {near}.",
        )
        return model.native_sizes[0]
    if not _is_trained(size, model, image):
        found.warn(
            "size",
            "untrained_size",
            f"size is {size}. {model.id} learned {', '.join(map(str, model.native_sizes))}. "
            "Other sizes may look worse.",
        )
    return size


def _fits(size: Size, model: Model) -> bool:
    return (
        size.width % model.size_multiple == 0
        and size.height % model.size_multiple == 0
        and model.min_side <= min(size.width, size.height)
        and max(size.width, size.height) <= model.max_side
        and size.width * size.height <= model.max_area
    )


def _nearest(size: Size, model: Model) -> list[Size]:
    """Find the two makeable sizes closest in pixels, or the only one; looks at some thousands."""
    sides = range(
        model.size_multiple * math.ceil(model.min_side / model.size_multiple),
        model.max_side + 1,
        model.size_multiple,
    )
    makeable = (Size(w, h) for w in sides for h in sides if w * h <= model.max_area)
    ranked = sorted(makeable, key=lambda s: abs(s.width - size.width) + abs(s.height - size.height))
    return ranked[:2]


def _is_trained(size: Size, model: Model, image: ImageRef | None) -> bool:
    if size in model.native_sizes:
        return True
    area = size.width * size.height
    return image is not None and any(
        abs(area / (s.width * s.height) - 1) <= _SAME_AREA for s in model.native_sizes
    )


def _auto(model: Model, image: ImageRef) -> Size:
    """Take the image's aspect at the native area, floored to the model's step."""
    native = model.native_sizes[0]
    area, ratio = native.width * native.height, image.width / image.height
    return Size(_side(math.sqrt(area * ratio), model), _side(math.sqrt(area / ratio), model))


def _side(pixels: float, model: Model) -> int:
    step = model.size_multiple
    least = step * math.ceil(model.min_side / step)
    return min(max(int(pixels) // step * step, least), model.max_side // step * step)


def frames_for(seconds: float, fps: int) -> int:
    """Count the frames of a length: the nearest 4k+1."""
    return 4 * math.floor(seconds * fps / 4 + 0.5) + 1


def frames_of(request: Overrides, model: Model, found: Findings) -> int:
    """Settle the number of frames; after a fault, the model's own."""
    fps = request.fps or model.fps
    frames, param, value = request.frames, "frames", f"{request.frames}"
    if request.seconds is not None:
        by_seconds = frames_for(request.seconds, fps)
        if frames is not None and frames != by_seconds:
            found.fault(
                "seconds",
                "conflicting_fields",
                f"seconds is {request.seconds:g} and frames is {frames}. At {fps} fps "
                f"{request.seconds:g} s are {by_seconds} frames. Send one of the two.",
            )
        if frames is None:
            frames, param, value = by_seconds, "seconds", f"{request.seconds:g}"
    if frames is None:
        return model.frames
    return _makeable(frames, param, value, model, found)


def _makeable(frames: int, param: str, value: str, model: Model, found: Findings) -> int:
    if (frames - 1) % 4:
        below = (frames - 1) // 4 * 4 + 1
        found.fault(
            param,
            "invalid_value",
            f"frames is {frames}. Wan2.2 makes 4k+1 frames. Use {below} or {below + 4}.",
        )
        return model.frames
    if frames > model.max_frames:
        found.fault(
            param,
            "invalid_value",
            f"{param} is {value}. {model.id} makes at most {model.max_frames} frames. "
            "Ask for a shorter video.",
        )
        return model.frames
    if frames > model.frames:
        found.warn(
            param,
            "frames_beyond_training",
            f"{param} is {value}. {model.id} learned {model.frames} frames. "
            "Longer videos may repeat or drift.",
        )
    return frames
