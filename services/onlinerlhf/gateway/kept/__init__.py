"""What is kept for the reward model: answers, and what people said about them. Never a reward by itself."""
