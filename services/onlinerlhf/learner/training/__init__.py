"""Offline training: supervised fine-tuning and what all stages share (data, the loop, checkpoints, tracking).

`rows` and `data` read files; `loop` trains; `run` keeps a training's directory; a file a stage puts them together.
"""
