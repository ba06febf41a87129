"""What follows the log: the tailing runner, the projector, the read side and the check of one against the other."""
