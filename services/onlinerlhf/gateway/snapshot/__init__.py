"""Offline: what the platform holds of prompts, answers and judgements, as Parquet files with a manifest.

material (Redis) -> rules: blocked owners, near-duplicates, cap, split -> tables -> a directory, all of it or none

Imported by the command line alone: the gateway's process needs neither pyarrow nor rensa.
"""
