"""The operator's commands, `onlinerlhf k8s …`: a few API calls each, and words about what happens next."""
