"""Pure functions of reinforcement learning from human feedback: tensors in, tensors out. No I/O, no models, no logging.

Conventions of every function here
- `[B, T]`: B sequences (prompt then response, padded on the right to T positions).
- `response_mask[b, t]` is true where position t of row b holds a response token. A row's response tokens are
  contiguous. What lies outside the mask never influences a result, be it NaN.
- Everything about token t sits at position t: `logprobs[b, t]` is the log-probability of the token *at* t given
  what stands before it (a model reads it off position t-1), `values[b, t]` the value of the state in which that
  token was chosen (read off position t-1 too, so it does not see the token).
- Logprobs and KL are in nats.
"""
