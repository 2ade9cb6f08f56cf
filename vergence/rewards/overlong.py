"""A soft penalty on responses that nearly fill their room (DAPO, arXiv:2503.14476, equation 13)."""

from vergence.types import UserError


def overlong(length: int, longest: int, buffer: int) -> float:
    """The penalty, 0 or less: 0 up to `longest - buffer`, then falling in a line to -1 at `longest`, and -1 beyond.

    >>> [overlong(length, 20480, 4096) for length in (16384, 18432, 20480)]
    [0.0, -0.5, -1.0]

    Args:
        length: of the response, tokens.
        longest: the limit, tokens.
        buffer: the last stretch before the limit, tokens; 0 leaves nothing but -1 beyond the limit.

    Raises:
        UserError: the buffer is negative or longer than the limit.
    """
    if not 0 <= buffer <= longest:
        raise UserError(f"the buffer of the length penalty must lie in [0, {longest}] tokens, got {buffer}")
    excess = length - (longest - buffer)
    if excess <= 0:
        return 0.0
    return max(-1.0, -excess / buffer) if buffer else -1.0
