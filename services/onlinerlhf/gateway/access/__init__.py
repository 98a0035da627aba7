"""Who calls, and how much they may: API keys, and limits exact over all gateways."""
