"""Does at once what several threads ask for at the same time."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

Ask = TypeVar("Ask")
Answer = TypeVar("Answer")
Do = Callable[[Sequence[Ask]], Sequence[Answer | Exception]]


class Together(Generic[Ask, Answer]):
    """Whoever comes to an idle counter is served at once; those who come meanwhile, all together.

    Nobody waits for others to come, so an idle process answers as fast as without it. The more
    ask at the same time, the less each of them costs.
    """

    def __init__(self, most: int) -> None:
        """Take how many are served together at most."""
        self._most = most
        self._turn = threading.Lock()
        self._asked: deque[tuple[Ask, Future[Answer]]] = deque()

    def __len__(self) -> int:
        """Count those who wait."""
        return len(self._asked)

    def ask(self, what: Ask, do: Do[Ask, Answer]) -> Answer:
        """Have something done, perhaps together with what others ask for, by one of us.

        Args:
            what: is to be done.
            do: gives an answer for each of several, in order, or what is raised for it; what it
                raises itself is raised for all of them.
        """
        mine: Future[Answer] = Future()
        self._asked.append((what, mine))
        with self._turn:
            while not mine.done():
                self._serve(do)
        return mine.result()

    def _serve(self, do: Do[Ask, Answer]) -> None:
        """Serve those who have waited longest."""
        first = [self._asked.popleft() for _ in range(min(self._most, len(self._asked)))]
        try:
            answers = do([what for what, _ in first])
        except Exception as err:  # noqa: BLE001 - each of those who wait raises it
            answers = [err] * len(first)
        for (_, future), answer in zip(first, answers, strict=True):
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)
