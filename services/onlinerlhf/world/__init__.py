"""An instruction world for demonstrations and tests: prompts, simulated people, and a gold judge.

Pure Python and seeded: no I/O, no torch. Everything here plays a person outside the platform (users, labelers, the
judge), so nothing in the services' own logic may import the judge.
"""
