"""Looks at a page in a real browser, headless: what it shows, measured by a script in a copy."""

from __future__ import annotations

import html
import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

from conftest import find_browser

FLAGS = (
    "--headless",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)
_PROBE = """<script>addEventListener("load", () => {
  const box = e => { const r = e.getBoundingClientRect(); return [r.x, r.y, r.width, r.height] };
  const all = query => [...document.querySelectorAll(query)];
  document.documentElement.dataset.probe = JSON.stringify({
    width: document.documentElement.clientWidth,
    scrolled: document.documentElement.scrollWidth,
    title: document.title,
    text: document.body.innerText,
    images: all("img").map(e => [e.naturalWidth, e.naturalHeight, ...box(e)]),
    drawings: all("svg").map(box),
    loaded: performance.getEntriesByType("resource").map(e => e.name.slice(0, 5)),
  }) })</script>"""


def look(page: Path, folder: Path, width: int = 1100, height: int = 1600) -> dict[str, Any]:
    """Open a copy of the page in a window and return what the probe saw; leaves shot.png."""
    copy = folder / "probed.html"
    text = page.read_text(encoding="utf-8")
    copy.write_text(text.replace("</body>", f"{_PROBE}</body>"), encoding="utf-8")
    window = f"--window-size={width},{height}"
    _run(folder, window, f"--screenshot={folder / 'shot.png'}", copy)
    dom = _run(folder, window, "--dump-dom", copy)
    found = re.search(r'data-probe="([^"]*)"', dom)
    assert found, dom[:500]
    seen: dict[str, Any] = json.loads(html.unescape(found[1]))
    return seen


def _run(folder: Path, *arguments: object) -> str:
    browser = find_browser()
    assert browser
    flags = [*FLAGS, f"--user-data-dir={folder / 'profile'}"]
    flags += ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium's own rule for root
    *options, page = map(str, arguments)
    command = [browser, *flags, *options, Path(page).as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout
