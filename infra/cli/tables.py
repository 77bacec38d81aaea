"""Tables for terminals."""

from collections.abc import Sequence
from typing import Any, Final

from infra.cli.output import console, plain

# What is left to a column beside others that are kept whole.
_LEAST: Final = 10
_GAP: Final = 2


def print_table(
    header: Sequence[str], rows: Sequence[Sequence[Any]], *, right: Sequence[str] = (), whole: Sequence[str] = ()
) -> None:
    """Print rows below a header, the columns named in `right` with their numbers below one another.

    Cells of the columns named in `whole` stay in one line, to be copied, even where that makes lines longer than the
    terminal is wide.
    """
    from rich.table import Table
    from rich.text import Text  # a plain string would be taken for markup

    table = Table(box=None, pad_edge=False, header_style="bold", show_header=any(header))
    cells = [[Text(plain(str(value))) for value in row] for row in rows]
    for at, name in enumerate(header):
        table.add_column(name, overflow="fold", justify="right" if name in right else "left")
        if whole:
            longest = max((row[at].cell_len for row in cells), default=0)
            table.columns[at].min_width = longest if name in whole else min(longest, _LEAST)
    for row in cells:
        table.add_row(*row)
    needed = sum((column.min_width or 0) + _GAP for column in table.columns)
    console.print(table, width=max(console.width, needed), crop=False)
