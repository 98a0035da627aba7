"""What a seed's policies are trained and measured on: users' prompts and pretraining texts."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from onlinerlhf.learner.bootstrap.sizes import SIZES
from onlinerlhf.local.reproduce.settings import Settings
from onlinerlhf.world.text import documents
from onlinerlhf.world.users import Split, UserPrompt, prompts, users

_UNSEEN_SEED = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class People:
    """One seed's users and texts."""

    seed: int
    settings: Settings

    @property
    def train(self) -> tuple[UserPrompt, ...]:
        """Prompts that PPO learns from."""
        return prompts(self._split.train, self.settings.num_prompts, seed=self.seed)

    @property
    def held_out(self) -> tuple[UserPrompt, ...]:
        """Prompts of users nobody learns from, none of which training has seen from anyone."""
        return prompts(self._split.held_out, self.settings.num_held_out, seed=self.seed)

    def pretraining_texts(self) -> list[str]:
        """Texts that the base model was pretrained on, to be mixed in."""
        return list(islice(_plain(self.seed), self.settings.num_mix_texts))

    def unseen_texts(self) -> list[str]:
        """Texts of the same kind of which none was ever trained on."""
        size = SIZES[self.settings.scale]
        num_seen = size.pretrain_steps * size.pretrain_batch
        seen = {document.text for document in islice(documents(seed=self.seed), num_seen)}
        seen.update(self.pretraining_texts())
        fresh = (text for text in _plain(_UNSEEN_SEED + self.seed) if text not in seen)
        return list(islice(fresh, self.settings.num_unseen_texts))

    @property
    def _split(self) -> Split:
        return users(self.seed, count=self.settings.num_users)


def _plain(seed: int) -> Iterator[str]:
    """Pretraining texts as a reader meets them, without the few that are laid out as conversations.

    Those are the very form in which policies answer: what they lose there is what they were trained to change.
    """
    return (document.text for document in documents(seed=seed) if not document.is_chat)
