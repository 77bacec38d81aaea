"""Steps of long work, shown while they run and kept as lines once they are done."""

from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


class Steps:
    """Shows one step at a time: a spinner on a terminal, plain lines elsewhere."""

    def __init__(self, console: "Console") -> None:
        self._console = console

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Show `name` until the context ends, then how long it took."""
        start = monotonic()
        try:
            with self._console.status(f"{name} …"):
                yield
        except BaseException:
            self._console.print(f"  [red]✗[/] {name}", highlight=False)
            raise
        seconds = monotonic() - start
        self._console.print(f"  [green]✓[/] {name}  [dim]{seconds:.1f} s[/]", highlight=False)
