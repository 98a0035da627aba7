"""Room: [rollouts] -> reward model -> [scored]. torch is loaded by `engine` alone."""
