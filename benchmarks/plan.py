"""What a run of `serving` covers."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.contestants import ALL
from benchmarks.workloads import WORKLOADS


@dataclass(frozen=True)
class Plan:
    """What a run covers; times in seconds."""

    servers: tuple[str, ...]
    models: tuple[str, ...]
    protocols: tuple[str, ...]
    connections: tuple[int, ...]
    rounds: int
    seconds: float
    warm_up: float
    sections: tuple[str, ...]

    def covers(self, protocol: str) -> bool:
        """Whether doors of this protocol are measured; a server without a protocol of its own counts as JSON."""
        return ("json" if protocol == "rows" else protocol) in self.protocols


def read_plan(description: str | None) -> Plan:
    """The plan that the command line asks for."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two short rounds: a first look, not a result")
    parser.add_argument("--only", help=f"servers, of {','.join(ALL)}")
    parser.add_argument("--models", help=f"models, of {','.join(WORKLOADS)}")
    parser.add_argument("--protocols", default="json,binary,grpc", help="doors by protocol")
    parser.add_argument("--concurrency", default="1,8,64", help="connections of the load generator")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=float, help="of each measurement")
    parser.add_argument("--sections", default="start,throughput,overload")
    options = parser.parse_args()
    rounds, seconds = (2, 1.0) if options.quick else (5, 3.0)
    return Plan(
        _chosen(parser, options.only, tuple(ALL)),
        _chosen(parser, options.models, tuple(WORKLOADS)),
        tuple(options.protocols.split(",")),
        tuple(int(number) for number in options.concurrency.split(",")),
        options.rounds or rounds,
        options.seconds or seconds,
        0.5 if options.quick else 1.0,
        tuple(options.sections.split(",")),
    )


def _chosen(parser: argparse.ArgumentParser, text: str | None, known: Sequence[str]) -> tuple[str, ...]:
    names = tuple(text.split(",")) if text else tuple(known)
    if unknown := set(names) - set(known):
        parser.error(f"there is no {', '.join(sorted(unknown))}; there is {', '.join(known)}")
    return names
