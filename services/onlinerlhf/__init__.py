"""Online RLHF: gateway, rollout workers, reward model and PPO learner, joined by Redis Streams."""
