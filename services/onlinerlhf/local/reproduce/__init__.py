"""The paper in miniature: base, prompted base, SFT, PPO and PPO-ptx on the bootstrapped instruction world.

Of each seed: `settings` says what is trained, `jobs` trains and measures it (one process a job), `seeds` runs the jobs
of all seeds side by side. Then `claims` draws conclusions, and `report` and `plots` show them.
"""
