"""Images that come as PNG or JPEG files: the answers are those to the arrays that Pillow reads from them."""

import io
import struct
import unittest
import zlib

import numpy as np
from openpi_client.websocket_client_policy import WebsocketClientPolicy
from PIL import Image, ImageFile

from support import POLICIES, TemporaryFolderTest, golden_request, one_instruction_set, read, run, serve

NAME = "pi05_droid_jointpos_polaris"
FOLDER = POLICIES / NAME
MODEL = ["--config", NAME, "--checkpoint-dir", FOLDER, *one_instruction_set(), "--num-steps", 1, "--precision", "float32"]
CAMERAS = ["observation/exterior_image_1_left", "observation/wrist_image_left"]
ImageFile.MAXBLOCK = 1 << 22  # Pillow writes some JPEG files only into a larger buffer


def picture(height, width, seed=0):
    """Smooth, with a camera's noise."""
    random = np.random.default_rng(seed)
    small = Image.fromarray(random.integers(0, 256, (6, 8, 3), np.uint8))
    smooth = np.asarray(small.resize((width, height), Image.BICUBIC)).astype(int)
    return np.clip(smooth + random.integers(-8, 9, smooth.shape), 0, 255).astype(np.uint8)


def compressed(array, kind, **options):
    file = io.BytesIO()
    Image.fromarray(array).save(file, kind, **options)
    return file.getvalue()


def as_pillow_reads(file):
    return np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))


def bombs():
    """Small files that would take much memory or time."""
    png = compressed(picture(8, 8), "PNG")
    jpeg = compressed(picture(8, 8), "JPEG")
    frame = jpeg.index(b"\xff\xc0")
    return {
        "65535 x 65535 pixels": png[:16] + struct.pack(">II", 65535, 65535) + png[24:],
        "65500 x 65500 pixels": jpeg[: frame + 5] + struct.pack(">HH", 65500, 65500) + jpeg[frame + 9 :],
        "premature end": jpeg[: frame + 5] + struct.pack(">HH", 4096, 4096) + jpeg[frame + 9 :],
        "ends too early": png[:33] + struct.pack(">I", 2**31 - 1) + b"tEXt" + b"abc",
        "bytes behind the picture": png + zlib.compress(bytes(100_000_000)),
        "neither as a PNG nor as a JPEG": bytes(1000),
    }


class ImagesTest(TemporaryFolderTest):
    def infer(self, server, cameras):
        client = WebsocketClientPolicy("127.0.0.1", server.port)
        return client.infer({**golden_request(FOLDER), **dict(zip(CAMERAS, cameras, strict=True))})["actions"]

    def test_answers_are_those_to_arrays(self):
        with serve(*MODEL) as server:
            client = WebsocketClientPolicy("127.0.0.1", server.port)
            self.assertEqual(client.get_server_metadata()["image_format"], ["array", "png", "jpeg"])
            seen = []
            for size in ((224, 224), (480, 640)):
                pictures = [picture(*size, seed) for seed in (1, 2)]
                for kind, options in (
                    ("PNG", {}),
                    ("JPEG", {"quality": 90}),
                    ("JPEG", {"quality": 50, "subsampling": "4:2:0", "progressive": True}),
                ):
                    files = [compressed(array, kind, **options) for array in pictures]
                    expected = self.infer(server, [as_pillow_reads(file) for file in files])
                    np.testing.assert_array_equal(self.infer(server, files), expected)
                    np.testing.assert_array_equal(self.infer(server, [np.frombuffer(file, np.uint8) for file in files]), expected)
                    seen.append(expected.tobytes())
            self.assertEqual(len(set(seen)), len(seen), "the model does not see the pictures")

    def test_bombs_are_refused_and_the_server_goes_on(self):
        with serve(*MODEL) as server:
            for expected, file in bombs().items():
                with self.assertRaisesRegex(RuntimeError, f"{CAMERAS[1]}: found .*{expected}"):
                    self.infer(server, [picture(8, 8), file])
            self.assertEqual(self.infer(server, [picture(8, 8)] * 2).shape, (15, 8))
            self.assertEqual(server.stop(), 0)

    def test_limit(self):
        file = compressed(picture(8, 9), "PNG")
        for limit, is_taken in ((8 * 9 * 3, True), (8 * 9 * 3 - 1, False)):
            with serve(*MODEL, "--max-image-bytes", limit) as server:
                if is_taken:
                    self.assertEqual(self.infer(server, [file, file]).shape, (15, 8))
                    continue
                with self.assertRaisesRegex(RuntimeError, "8 x 9 pixels, expected at most 215 bytes .*--max-image-bytes"):
                    self.infer(server, [file, file])

    def test_recordings_hold_the_files_and_are_replayed(self):
        records = self.folder / "records"
        files = [compressed(picture(60, 80, 3), "JPEG"), compressed(picture(60, 80, 4), "PNG")]
        with serve(*MODEL, "--record", records) as server:
            actions = self.infer(server, files)
            self.assertEqual(server.stop(), 0)
        recorded = records / "000000.request.msgpack"
        self.assertEqual([read(recorded)[camera] for camera in CAMERAS], files)
        output = self.folder / "answer.msgpack"
        done = run("pi0", "infer", *MODEL, "--request", recorded, "--output", output)
        self.assertEqual(done.returncode, 0, done.stderr)
        np.testing.assert_array_equal(read(output)["actions"], actions)
        formats = ["--input-fmts", "float16", "--output-fmts", "float16"]
        done = run("pi0", "sweep", *MODEL, "--observations", records, *formats, "--output", self.folder / "sweep")
        self.assertEqual(done.returncode, 0, done.stderr)


if __name__ == "__main__":
    unittest.main()
