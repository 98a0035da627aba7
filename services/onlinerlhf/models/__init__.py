"""Models and tokenizers kept in ordinary transformers directories: policy, reward model, value network.

`tokenizer` and `version` import neither torch nor transformers, so the gateway can use them.
"""
