"""Domain values and errors. No I/O, no torch, no protobuf: all else may import this, and this imports nothing."""
