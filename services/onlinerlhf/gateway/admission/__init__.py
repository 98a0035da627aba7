"""The train path: consent, screens, and the pool of prompts that the run is fed from."""
