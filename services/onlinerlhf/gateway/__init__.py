"""Room: prompts in -> screened -> pool -> [prompts], and the user lane that answers them. Free of torch.

gRPC  ─┐
       ├─> desk: form -> key -> limits, receipt ─┬─> lane -> rollout's Generate -> tokens back      always
HTTP  ─┘                                         └─> intake: screens -> admit (one script) -> pool   with consent
                                                                         pool -> feeder -> [prompts]
"""
