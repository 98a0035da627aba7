"""The small impure kernel all rooms share: config, logs, metrics, serving, channels, Redis Streams and the ledger.

Nothing here knows what a room does, and nothing connects at import time.
"""
