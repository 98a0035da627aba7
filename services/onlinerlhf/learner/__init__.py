"""The learner room: [scored] -> PPO -> weights out. Also makes the models that a run starts from (`bootstrap`)."""
