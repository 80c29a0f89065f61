"""Where metashot keeps things on this machine."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def cache_folder() -> Path:
    """The environment's METASHOT_CACHE, else the user's cache folder."""
    chosen = os.environ.get("METASHOT_CACHE")
    return Path(chosen) if chosen else platformdirs.user_cache_path("metashot")
