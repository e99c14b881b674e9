"""What a run leaves on disk: contract.md's files, written atomically under an identity made from the configuration."""
