"""The two architectures that Lambda runs."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Platform:
    """`architecture` is Lambda's name, `uv` that for wheels which run on Amazon Linux 2023, `elf_machine` ELF's."""

    architecture: str
    uv: str
    elf_machine: int


PLATFORMS = {
    "x86_64": Platform("x86_64", "x86_64-manylinux_2_28", 62),
    "arm64": Platform("arm64", "aarch64-manylinux_2_28", 183),
}
