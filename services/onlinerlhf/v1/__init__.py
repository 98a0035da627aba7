"""Generated from proto/onlinerlhf/v1 by `make proto`. Never edited."""
