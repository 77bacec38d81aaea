"""Tables and facts for terminals."""

import os
from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import Any, Final, Literal

from infra.cli.output import console, messages, plain

# What is left to a column beside others that are kept whole.
_LEAST: Final = 20
_GAP: Final = 2


def print_table(
    header: Sequence[str],
    rows: Sequence[Sequence[Any]],
    *,
    right: Sequence[str] = (),
    whole: Sequence[str] = (),
    spare: Sequence[str] = (),
    marked: Sequence[int] = (),
) -> None:
    """Print rows below a header, the columns named in `right` with their numbers below one another.

    Where a terminal is too narrow for all, those named in `spare` are left out, the first of them first, and named
    below; then the others are folded. Cells of the columns named in `whole` stay in one line, to be copied, even where
    that makes lines longer than the terminal is wide. What is no terminal gets all of them, a line a row. The rows at
    the places `marked` are to be looked at.
    """
    from rich.table import Table
    from rich.text import Text  # a plain string would be taken for markup

    cells = [[Text(plain(str(value))) for value in row] for row in rows]
    longest = [max([len(name), *(row[at].cell_len for row in cells)]) for at, name in enumerate(header)]
    least = [most if name in whole else min(most, _LEAST) for name, most in zip(header, longest, strict=True)]
    width = _width()
    kept, left_out = _kept(header, least, spare, width)
    widths = _widths([least[at] for at in kept], [longest[at] for at in kept], width)
    # Rich would take from the columns that are to stay whole, too: it is told all widths.
    table = Table(box=None, pad_edge=False, header_style="bold", show_header=any(header))
    for at, cell_width in zip(kept, widths, strict=True):
        justify: Literal["left", "right"] = "right" if header[at] in right else "left"
        table.add_column(plain(header[at]), overflow="fold", justify=justify, width=cell_width)
    for number, row in enumerate(cells):
        table.add_row(*(row[at] for at in kept), style="yellow" if number in marked else None)
    table.width = sum(widths) + _GAP * (len(widths) - 1)
    console.print(table, crop=False)
    if left_out:
        names = ", ".join(left_out)
        messages.print(
            f"Too narrow for: {names}. A wider terminal shows them, or --json.",
            style="dim",
            markup=False,
            soft_wrap=True,
        )


def print_facts(facts: Mapping[str, Any]) -> None:
    """Print what there is to say of one thing, a name and its value a line; None and the empty text are left out.

    Long values go on below one another, broken between words only: ids and addresses stay whole.
    """
    said = {name: plain(str(value)) for name, value in facts.items() if value is not None and value != ""}
    margin = max(map(len, said), default=0) + _GAP
    width = _width()
    for name, value in said.items():
        lines = [value] if width is None else _broken(value, max(width - margin, _LEAST))
        for at, line in enumerate(lines):
            console.print(f"{'' if at else name:<{margin}}{line}", markup=False, soft_wrap=True)


def _broken(value: str, width: int) -> Sequence[str]:
    return wrap(value, width, break_long_words=False, break_on_hyphens=False) or [""]


def _width() -> int | None:
    """How wide the terminal is; None where lines may have any length, in a file or a pipe."""
    return console.width if console.is_terminal or "COLUMNS" in os.environ else None


def _kept(
    header: Sequence[str], least: Sequence[int], spare: Sequence[str], width: int | None
) -> tuple[Sequence[int], Sequence[str]]:
    """The places of the columns that are shown, and the names of the others."""
    kept = list(range(len(header)))
    left_out: list[str] = []
    for name in spare:
        if width is None or sum(least[at] for at in kept) + _GAP * (len(kept) - 1) <= width:
            break
        kept.remove(header.index(name))
        left_out.append(name)
    return kept, left_out


def _widths(least: Sequence[int], longest: Sequence[int], width: int | None) -> Sequence[int]:
    """Of each column: what it needs at the least, and of what is left its share, those that need little first."""
    if width is None:
        return longest
    widths = list(least)
    left = max(0, width - sum(least) - _GAP * (len(least) - 1))
    by_need = sorted(range(len(least)), key=lambda at: longest[at] - least[at])
    for number, at in enumerate(by_need):
        more = min(longest[at] - least[at], left // (len(by_need) - number))
        widths[at] += more
        left -= more
    return widths
