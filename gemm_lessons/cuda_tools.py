"""Programs of the CUDA toolkit, wherever they are installed."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path


def find_tool(name: str) -> str | None:
    """A program by its name, from PATH, a CUDA toolkit, or an NVIDIA wheel; None without one."""
    found = shutil.which(name)
    if found:
        return found
    homes = [os.environ.get("CUDA_HOME", ""), "/usr/local/cuda", *map(str, Path("/usr/local").glob("cuda-*"))]
    places = [Path(home) / "bin" / name for home in homes if home]
    for folder in map(Path, sys.path):
        places += folder.glob(f"nvidia/**/{name}")
    return next((str(place) for place in places if place.is_file() and os.access(place, os.X_OK)), None)
