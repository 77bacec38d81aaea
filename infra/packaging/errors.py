"""What can be wrong with a build."""


class PackagingError(Exception):
    """The artefacts cannot be built as asked; the message says what to do."""
