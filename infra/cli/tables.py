"""Tables for terminals."""

from collections.abc import Sequence
from typing import Any

from infra.cli.output import console, plain


def print_table(header: Sequence[str], rows: Sequence[Sequence[Any]], *, right: Sequence[str] = ()) -> None:
    """Print rows below a header, the columns named in `right` with their numbers below one another."""
    from rich.table import Table
    from rich.text import Text  # a plain string would be taken for markup

    table = Table(box=None, pad_edge=False, header_style="bold", show_header=any(header))
    for name in header:
        table.add_column(name, overflow="fold", justify="right" if name in right else "left")
    for row in rows:
        table.add_row(*(Text(plain(str(value))) for value in row))
    console.print(table)
