"""What Pydantic found wrong, in one line."""

from pydantic import ValidationError

_MOST = 5


def explain(error: ValidationError) -> str:
    """The first places that are wrong with what is wrong there, without the values."""
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    places = (f"{'.'.join(map(str, problem['loc'])) or 'document'}: {problem['msg']}" for problem in problems[:_MOST])
    return "; ".join(places)
