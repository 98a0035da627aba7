"""Room: prompts in -> screened -> pool -> [prompts], and the user lane that answers them. Free of torch.

request -> screens -> admit (one script) -> pool -> feeder (one script) -> [prompts]
              └-> lane -> rollout's Generate -> tokens back
"""
