"""What torchrun starts in the tests of several ranks: scenarios that rank 0 leads and the others follow.

Each is a JSON object: `settings` of the recipe, `steps` to make, `out` for the state that comes out, and, if wanted,
checkpoints to `load` and `save`, and `poison`: a step before all others whose scores are not finite.
"""

import dataclasses
import json
import math
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from onlinerlhf.core.errors import NonFiniteLoss
from onlinerlhf.learner.build import build_ppo
from onlinerlhf.learner.checkpoint import CheckpointStore, Progress
from onlinerlhf.learner.followers import follow, leading
from onlinerlhf.learner.ppo_state import exported, gather
from onlinerlhf.learner.ranks import Ranks
from onlinerlhf.learner.recipe_config import RecipeConfig
from onlinerlhf.learner.sharding import meeting
from unit.learner.tiny import random_rollouts


def play(scenario: dict[str, Any], ranks: Ranks | None = None) -> None:
    """As one process, or as the leader of several."""
    ppo = build_ppo(RecipeConfig.model_validate(scenario["settings"]), ranks)
    if "load" in scenario:
        assert CheckpointStore(Path(scenario["load"])).load(ppo) is not None
    if scenario.get("poison"):
        poison = [dataclasses.replace(rollout, score=math.nan) for rollout in random_rollouts(24)]
        with suppress(NonFiniteLoss):
            ppo.step(poison)
    metrics = [dataclasses.asdict(ppo.step(random_rollouts(24, seed=ppo.num_steps))) for _ in range(scenario["steps"])]
    if "save" in scenario:
        CheckpointStore(Path(scenario["save"])).save(ppo, Progress(step=ppo.num_steps, version=1))
    out = Path(scenario["out"])
    state = {f"{part}.{name}": tensor for part, tensors in gather(ppo).items() for name, tensor in tensors.items()}
    save_file({name: tensor.clone() for name, tensor in state.items()}, out.with_suffix(".safetensors"))
    save_file(exported(ppo), out.with_suffix(".policy"))
    save_file(exported(ppo, averaged=True), out.with_suffix(".ema"))
    out.with_suffix(".json").write_text(json.dumps(metrics))


def main() -> None:
    torch.set_num_threads(1)
    scenarios: list[dict[str, Any]] = json.loads(Path(sys.argv[1]).read_text())
    config = RecipeConfig.model_validate(scenarios[0]["settings"])
    with meeting(config) as (ranks, store):
        assert store is not None
        if ranks.rank == 0:
            with leading(ranks, store) as leader:
                for scenario in scenarios:
                    play(scenario, leader)
        else:
            # Settings are the same for all scenarios but for those that the leader's word stands in for.
            builds = iter(scenarios)

            def build() -> Any:
                return partial(build_ppo, RecipeConfig.model_validate(next(builds)["settings"]), ranks)()

            follow(ranks, store, build)


if __name__ == "__main__":
    main()
