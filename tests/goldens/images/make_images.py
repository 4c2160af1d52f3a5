"""Writes images.msgpack: `taken`, PNG and JPEG files with the pixels that Pillow reads from them, and `refused`, files.

python make_images.py, with numpy, msgpack, openpi-client and Pillow 11.2.1.
"""

import io
import struct
import zlib

import numpy as np
from openpi_client import msgpack_numpy
from PIL import Image

RANDOM = np.random.default_rng(20261127)
ADAM7 = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]  # y, x, steps
GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6


def chunk(name, data=b""):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def scanlines(samples, depth):
    """[H, W, C] as rows of PNG without a filter."""
    if depth == 16:
        rows = [row.astype(">u2").tobytes() for row in samples]
    else:
        bits = np.unpackbits(samples.astype(np.uint8)[..., None], axis=-1)[..., 8 - depth :]
        rows = [np.packbits(row).tobytes() for row in bits]
    return b"".join(b"\0" + row for row in rows)


def png(color, samples, depth=8, interlaced=False, before=(), after=(), pixels=None):
    """A PNG file; `pixels` replaces what the samples make."""
    height, width = samples.shape[:2]
    passes = [samples[y::dy, x::dx] for y, x, dy, dx in ADAM7] if interlaced else [samples]
    rows = b"".join(scanlines(part, depth) for part in passes if part.size)
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, int(interlaced))
    parts = [chunk(b"IHDR", header), *before, chunk(b"IDAT", zlib.compress(rows if pixels is None else pixels)), *after]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IEND")


def jpeg(image, **options):
    file = io.BytesIO()
    image.save(file, "JPEG", **{"quality": 80, "optimize": True, **options})
    return file.getvalue()


def rotated(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def tiff(orientation):
    return rotated(orientation).tobytes()[len(b"Exif\0\0") :]


def many_scans(count):
    """A progressive JPEG of one block; every scan after the first says that there is nothing more."""
    table = struct.pack(">16B", 1, *[0] * 15)
    file = b"\xff\xd8\xff\xdb" + struct.pack(">HB", 67, 0) + bytes([1] * 64)
    file += b"\xff\xc2" + struct.pack(">HBHHB", 11, 8, 8, 8, 1) + bytes([1, 0x11, 0])
    file += b"\xff\xc4" + struct.pack(">HB", 20, 0x00) + table + b"\0" + b"\xff\xc4" + struct.pack(">HB", 20, 0x10) + table + b"\0"
    file += b"\xff\xda" + struct.pack(">HB", 8, 1) + bytes([1, 0, 0, 0, 0, 0x7F])
    for number in range(count - 1):
        place = 1 + number % 63
        file += b"\xff\xda" + struct.pack(">HB", 8, 1) + bytes([1, 0, place, place, 0, 0x7F])
    return file + b"\xff\xd9"


def samples(top, channels=1):
    return RANDOM.integers(0, top, (7, 9, channels))


def colors(count):
    return chunk(b"PLTE", RANDOM.integers(0, 256, 3 * count, np.uint8).tobytes())


rgb = samples(256, 3)
smooth = Image.fromarray(RANDOM.integers(0, 256, (3, 4, 3), np.uint8)).resize((19, 13), Image.BICUBIC)
profile = chunk(b"gAMA", struct.pack(">I", 100000)) + chunk(b"iCCP", b"p\0\0" + zlib.compress(bytes(200)))
taken = {
    "png": png(RGB, rgb),
    "png interlaced": png(RGB, rgb, interlaced=True),
    "png grey 1": png(GREY, samples(2), 1),
    "png grey 2": png(GREY, samples(4), 2),
    "png grey 4": png(GREY, samples(16), 4, interlaced=True),
    "png grey 8": png(GREY, samples(256)),
    "png palette 1": png(PALETTE, samples(2), 1, before=[colors(2)]),
    "png palette 2": png(PALETTE, samples(3), 2, before=[colors(3)]),
    "png palette 4": png(PALETTE, samples(9), 4, interlaced=True, before=[colors(9)]),
    "png palette 8": png(PALETTE, samples(40), before=[colors(40)]),
    "png with profile": png(RGB, rgb, before=[profile]),
    "png with EXIF": png(RGB, rgb, before=[chunk(b"eXIf", tiff(1))]),
    "png with a text of 900 kB": png(RGB, rgb, before=[chunk(b"zTXt", b"t\0\0" + zlib.compress(bytes(900_000), 9))]),
    "png with 900 kB behind the last row": png(RGB, rgb, pixels=scanlines(rgb, 8) + bytes(900_000)),
    "jpeg 4:4:4": jpeg(smooth, subsampling="4:4:4"),
    "jpeg 4:2:2": jpeg(smooth, subsampling="4:2:2"),
    "jpeg 4:2:0": jpeg(smooth, subsampling="4:2:0"),
    "jpeg progressive": jpeg(smooth, progressive=True),
    "jpeg RGB": jpeg(smooth, keep_rgb=True),
    "jpeg grey": jpeg(smooth.convert("L")),
    "jpeg restarts": jpeg(smooth, restart_marker_blocks=1),
    "jpeg with profile": jpeg(smooth, icc_profile=bytes(200)),
    "jpeg with EXIF": jpeg(smooth, exif=rotated(1)),
    "jpeg of 100 scans": many_scans(100),
}  # fmt: skip
refused = {
    "png 16": png(RGB, rgb * 257, 16),
    "png RGBA": png(RGBA, samples(256, 4)),
    "png grey and alpha": png(GREY_ALPHA, samples(256, 2)),
    "png transparent color": png(RGB, rgb, before=[chunk(b"tRNS", bytes(6))]),
    "png animated": png(RGB, rgb, before=[chunk(b"acTL", struct.pack(">II", 1, 0))]),
    "png EXIF 6": png(RGB, rgb, before=[chunk(b"eXIf", tiff(6))]),
    "png EXIF 3 at the end": png(RGB, rgb, after=[chunk(b"eXIf", tiff(3))]),
    "png index": png(PALETTE, np.full((7, 9, 1), 5), before=[colors(3)]),
    "png without palette": png(PALETTE, np.full((7, 9, 1), 5)),
    "png without last row": png(RGB, rgb, pixels=scanlines(rgb[:6], 8)),
    "png interlaced without last row": png(RGB, rgb, interlaced=True, pixels=scanlines(rgb[:1, :2], 8)),
    "png empty": png(RGB, rgb[:0]),
    "jpeg CMYK": jpeg(smooth.convert("CMYK")),
    "jpeg EXIF 6": jpeg(smooth, exif=rotated(6)),
    "jpeg of 101 scans": many_scans(101),
}  # fmt: skip
pixels = {name: np.asarray(Image.open(io.BytesIO(file)).convert("RGB")) for name, file in taken.items()}
with open("images.msgpack", "wb") as output:
    output.write(msgpack_numpy.packb({"taken": {name: {"file": file, "pixels": pixels[name]} for name, file in taken.items()}, "refused": refused}))
