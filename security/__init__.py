"""What keeps content confidential: the envelope, the keyring and the vault."""
