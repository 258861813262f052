"""Writes other people's words into Markdown so that they show as they are (CommonMark and GitHub's tables)."""

import re
from collections.abc import Iterable, Sequence

_ADDRESS = re.compile(r"(https?://[^\s<>]*[^\s<>.,;:!?)\]'\"])")
_SPECIAL = re.compile(r"([\\`*\[\]<>|~$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|&(?=#?\w+;))")
_LINE_START = re.compile(r"^(\s*)([#+=-]|\d+(?=[.)](?:\s|$)))")
_DRAWN = re.compile(r"\s*([-_=*~#])\1{3,}\s*")
#: HTML that takes in everything after it if it is left open (CommonMark, "HTML blocks", kinds 1 to 5).
_SWALLOWING = re.compile(r"<(?=(?:script|pre|style|textarea)\b|[?!])", re.IGNORECASE)
_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})", re.MULTILINE)


def text(words: object) -> str:
    """Return one line of plain text as Markdown. Addresses become links."""
    line = " ".join(str(words).split())
    parts = _ADDRESS.split(line)
    escaped = "".join(f"<{part}>" if index % 2 else _SPECIAL.sub(r"\\\1", part) for index, part in enumerate(parts))
    return _LINE_START.sub(_escape_start, escaped)


def _escape_start(match: re.Match[str]) -> str:
    """Escape a first character that would begin a list or a heading. For `1.` the dot is escaped."""
    start = match.group(2)
    return f"{start}\\" if start.isdigit() else f"\\{start}"


def code(words: object) -> str:
    """Return a code span that is safe in a table too."""
    line = " ".join(str(words).split()).replace("|", "\\|")
    ticks = "`" * (1 + max((len(run) for run in re.findall(r"`+", line)), default=0))
    space = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{ticks}{space}{line}{space}{ticks}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], right: Iterable[int] = ()) -> str:
    """Return a table of cells that are Markdown already. The columns in `right` are aligned to the right."""
    right = set(right)
    rule = ["---:" if index in right else "---" for index in range(len(head))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *rows))


def bullets(items: Iterable[object]) -> str:
    """Return a list with one item a line."""
    return "\n".join(f"- {text(item)}" for item in items)


def plain_document(words: str) -> str:
    """Return a document of plain text: its paragraphs and line ends are kept, its drawn lines become rules."""
    lines = words.replace("\r\n", "\n").replace("\r", "\n").strip().split("\n")
    words = "\n".join("\n\n---\n\n" if _DRAWN.fullmatch(line) else line for line in lines)
    paragraphs = [part.strip() for part in re.split(r"\n\s*\n", words.strip())]
    return "\n\n".join(
        part if part == "---" else "\\\n".join(text(line) for line in part.split("\n") if line.strip())
        for part in paragraphs
    ).strip("-\n ")


def markdown_document(words: str, deeper: int) -> str:
    """Return a Markdown document with its headings `deeper` levels down, and nothing in it left open."""
    lines, fence = [], ""
    for line in words.replace("\r\n", "\n").replace("\r", "\n").strip().split("\n"):
        mark = _FENCE.match(line)
        if mark and (not fence or (mark.group(1).startswith(fence) and not line.strip().strip(fence[0]))):
            fence = "" if fence else mark.group(1)
        elif not fence:
            line = re.sub(r"^(#{1,6})(?=\s)", lambda match: "#" * min(6, len(match.group(1)) + deeper), line)
            line = _SWALLOWING.sub("&lt;", line)
        lines.append(line.replace("<!-- bids-push", "<!- bids-push"))
    return "\n".join(lines + ([fence] if fence else []))
