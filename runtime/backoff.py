"""How long to wait before the next attempt, and when to stop trying."""


class BackOff:
    """Delays that double with each attempt of the last `window_s`, from `first_s` up to `longest_s`.

    With `most`, that many attempts in a window and no more; without it the attempts never end.
    """

    def __init__(
        self, first_s: float = 0.1, longest_s: float = 5.0, most: int | None = None, window_s: float = 60.0
    ) -> None:
        self.first_s, self.longest_s, self.most, self.window_s = first_s, longest_s, most, window_s
        self._attempts: list[int] = []

    def next_s(self, now_ns: int) -> float | None:
        """Count an attempt and give the seconds to wait before it; None where `most` are spent."""
        self._attempts = [at for at in self._attempts if now_ns - at < self.window_s * 1e9]
        if self.most is not None and len(self._attempts) >= self.most:
            return None
        delay = min(self.first_s * 2.0 ** len(self._attempts), self.longest_s)
        self._attempts.append(now_ns)
        return delay
