"""How an input image comes to the size of its video."""

import pytest
from PIL import Image

from worker.engine.video.conditioning import fitted

RED, BLUE = (255, 0, 0), (0, 0, 255)


@pytest.fixture
def wide():
    """Four squares beside each other: red, blue, blue, red."""
    image = Image.new("RGB", (64, 16), RED)
    image.paste(BLUE, (16, 0, 48, 16))
    return image


@pytest.mark.parametrize(
    ("fit", "corner", "edge", "middle"),
    [
        ("cover", BLUE, BLUE, BLUE),  # the overhang left and right is cut
        ("contain", (0, 0, 0), RED, BLUE),  # bars above and below
        ("stretch", RED, RED, BLUE),
    ],
)
def test_the_image_fits_as_asked(wide, fit, corner, edge, middle):
    image = fitted(wide, 32, 32, fit)

    assert image.size == (32, 32)
    assert image.getpixel((0, 0)) == corner
    assert image.getpixel((0, 16)) == edge
    assert image.getpixel((16, 16)) == middle
