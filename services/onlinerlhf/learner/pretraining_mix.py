"""The stream of pretraining examples that PPO-ptx mixes in: each epoch in another order, and it can be resumed."""

import random
from collections.abc import Callable, Sequence

from onlinerlhf.core.errors import ConfigError


class PretrainingMix:
    """Endless examples, tokenised as they are taken. `position` is all there is to remember."""

    def __init__(
        self, texts: Sequence[str], encode: Callable[[str], Sequence[int]], *, max_tokens: int, seed: int
    ) -> None:
        if not texts:
            raise ConfigError("the pretraining mix has no texts")
        self._texts = texts
        self._encode = encode
        self._max_tokens = max_tokens
        self._seed = seed
        self._order: list[int] = []
        self._epoch = -1
        self.position = 0
        """Examples taken so far."""

    def take(self, count: int) -> list[Sequence[int]]:
        """The next examples as token ids, cut to `max_tokens`; each has at least two, so that one is predicted."""
        taken: list[Sequence[int]] = []
        num_useless = 0
        while len(taken) < count:
            ids = self._encode(self._texts[self._next()])[: self._max_tokens]
            num_useless = 0 if len(ids) > 1 else num_useless + 1
            if len(ids) > 1:
                taken.append(ids)
            elif num_useless >= len(self._texts):
                raise ConfigError("no text of the pretraining mix has two tokens")
        return taken

    def _next(self) -> int:
        epoch, place = divmod(self.position, len(self._texts))
        if epoch != self._epoch:
            self._order = list(range(len(self._texts)))
            random.Random(f"{self._seed}/{epoch}").shuffle(self._order)
            self._epoch = epoch
        self.position += 1
        return self._order[place]
