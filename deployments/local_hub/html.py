"""The frame of every page: a title, a style, and headers that let nothing run and nothing load from elsewhere."""

from __future__ import annotations

from datetime import UTC, datetime
from html import escape
from urllib.parse import quote

from starlette.responses import HTMLResponse

from deployments.local_hub.errors import HubError

STYLE = """
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif; }
body { max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; }
article table { display: block; overflow-x: auto; } article a { overflow-wrap: anywhere; }
td, th { padding: .2rem .6rem; border-bottom: 1px solid #8884; } th { text-align: left; } th.n { text-align: right; }
td.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
code, pre { font-family: ui-monospace, monospace; font-size: .9em; }
pre { overflow: auto; padding: .7rem; background: #8881; }
form { margin: .7rem 0; } input[type=search] { width: min(24rem, 65%); font: inherit; padding: .2rem .4rem; }
button { font: inherit; padding: .2rem .8rem; } h1, td a { overflow-wrap: anywhere; }
h1 { font-size: min(2em, 7vw); } td code, td.added, td.changed, td.removed, form span { white-space: nowrap; }
td.added { color: light-dark(#116329, #7ee787); } td.removed { color: light-dark(#a40e26, #ff7b72); }
@media (max-width: 40rem) { body { margin: 1rem auto; } .wide { display: none; } td, th { padding: .2rem .3rem; } }
.pictures { display: flex; flex-wrap: wrap; gap: 1rem; } figure { margin: .5rem 0; width: 240px; }
figure img { background: #000; border-radius: 4px; max-width: none; } figcaption { font-size: .85em; }
p code, .path, figcaption { overflow-wrap: anywhere; }
nav { margin: .5rem 0 1rem; } nav a { margin-right: 1rem; } .quiet { opacity: .7; } img { max-width: 100%; }
"""


def page(title: str, body: str, status: int = 200) -> HTMLResponse:
    """A page; `title` is escaped, `body` is HTML already."""
    return HTMLResponse(
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body>{body}</body></html>',
        status,
        headers={
            "Content-Security-Policy": (
                "default-src 'none'; style-src 'unsafe-inline'; img-src 'self' https: data:; form-action 'self'"
            ),
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "no-store",
        },
    )


def day(seconds: float) -> str:
    """A moment for people, to the minute; in UTC, as everything of the Hub."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")


def human(size: int) -> str:
    """Bytes for people, in powers of ten as the Hub shows them."""
    if size < 1000:
        return f"{size} B"
    power = min((len(str(size)) - 1) // 3, 4)
    return f"{size / 1000**power:.1f} {('B', 'kB', 'MB', 'GB', 'TB')[power]}"


def counted(files: int) -> str:
    """So many files, for a person."""
    return f"{files:,} {'file' if files == 1 else 'files'}"


def error_page(error: HubError, path: str) -> HTMLResponse:
    """A refusal for someone with a browser, with the way to what a private repo hides, and to all that there is."""
    ways = '<a href="/">All repositories</a>'
    if error.status in (401, 404):
        sign_in = f'<a href="/login?next={quote(path, safe="")}">sign in</a>'
        ways = f"If it is private, {sign_in} as somebody who may read it. {ways}"
    said = f"<h1>{error.status}</h1><p>{escape(error.message)}</p><p>{ways}</p>"
    return page(f"{error.status}", said, error.status)
