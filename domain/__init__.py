"""The rules of sessions, quotas and agents: facts in, facts or a typed refusal out. Standard library only, no I/O."""
