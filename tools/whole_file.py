"""Files that are seen whole or not at all, as protocol/files.h writes them."""

import os
import pathlib
import secrets


def write_whole(path: pathlib.Path, text: str):
    """Writes a temporary file of a random name beside `path`, which then takes its place."""
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}.part")
    try:
        with open(temporary, "x") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
