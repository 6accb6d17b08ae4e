import io

import pytest
from PIL import Image

from beamdesk.guest import picture
from beamdesk.protocol.guest import MAX_THUMBNAIL_BYTES


def test_png_is_what_was_drawn():
    pixels = bytes((x * 3 + y * 5 + c) & 0xFF for y in range(20) for x in range(31) for c in range(3))
    image = Image.open(io.BytesIO(picture.png(31, 20, pixels)))
    assert image.size == (31, 20)
    assert image.convert("RGB").tobytes() == pixels


def test_a_noisy_screen_still_fits():
    noise = bytearray()
    state = 1
    for _ in range(320 * 180 * 3):
        state = (1103515245 * state + 12345) & 0x7FFFFFFF
        noise.append(state >> 16 & 0xFF)
    try:
        assert len(picture.png(320, 180, bytes(noise))) <= MAX_THUMBNAIL_BYTES
    except picture.DisplayError:
        pytest.fail("noise must be coarsened until it fits")


def test_server_pixels_become_rgb():
    assert picture.rgb(b"\x01\x02\x03\x00\x11\x12\x13\xff") == b"\x03\x02\x01\x13\x12\x11"


@pytest.mark.parametrize("size", [(1920, 1080), (3840, 2160), (320, 200), (100, 50), (1366, 768), (1080, 1920), (5120, 160)])
def test_steps_end_at_the_target_and_never_skip_more_than_half(size):
    width, height = size
    for step in picture.scaling_steps(*size):
        assert step[0] * 2 >= width // 1 - 1 or step[0] == picture.WIDTH
        assert step[0] <= width
        width, height = step
    assert width <= picture.WIDTH
    assert height <= 480
