"""Room: backlog, learner and users -> replicas of the rollout pools; the only home of `kubernetes`."""
