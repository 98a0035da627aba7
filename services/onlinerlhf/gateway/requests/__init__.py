"""The way of one request: opened (form, key, limits, receipt), then answered, whatever is learned from it."""
