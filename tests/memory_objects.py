"""Objects in memory, as `shared.domain.ports.ObjectStore` has them."""

from dataclasses import dataclass, field

from shared.domain.errors import SourceNotFound
from shared.domain.jobs import ObjectRef
from shared.domain.uploads import ObjectHead


@dataclass
class MemoryObjects:
    """What is known of objects, by bucket and key; the newest version is the last one. `asked` are all HEADs."""

    heads: dict[tuple[str, str], list[ObjectHead]] = field(default_factory=dict)
    asked: list[ObjectRef] = field(default_factory=list)

    def put(self, ref: ObjectRef, head: ObjectHead) -> None:
        """Add a version."""
        self.heads.setdefault((ref.bucket, ref.key), []).append(head)

    def head(self, ref: ObjectRef) -> ObjectHead:
        """As the port has it."""
        self.asked.append(ref)
        for head in reversed(self.heads.get((ref.bucket, ref.key), [])):
            if ref.version_id in {None, head.version_id}:
                return head
        raise SourceNotFound("There is no such object.")
