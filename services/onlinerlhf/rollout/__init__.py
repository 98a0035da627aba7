"""The rollout room: [prompts] -> vLLM -> [rollouts], the user lane, and weights pulled from the learner.

`vllm` is imported in engine.py, weight_transfer.py and plugin.py only, and never at this package's import.
"""
